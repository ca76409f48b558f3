//! `septwatch top`: what is on the screen, and what a person may do with it. It draws [`scene::Scene`]s and knows neither
//! the kernel nor a file of events.

pub mod act;
pub mod columns;
pub mod config;
pub mod draw;
#[cfg(test)]
mod examples;
pub mod filter;
#[cfg(any(test, feature = "fixtures"))]
pub mod fixtures;
mod input;
pub mod json;
pub mod keys;
pub mod palette;
pub mod rows;
pub mod scene;
pub mod symbols;
pub mod ui;
