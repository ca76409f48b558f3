//! `septwatch top`: what is on the screen, and what a person may do with it. It draws [`scene::Scene`]s and knows neither
//! the kernel nor a file of events.

pub mod act;
pub mod columns;
#[cfg(test)]
mod examples;
pub mod filter;
mod input;
pub mod keys;
pub mod rows;
pub mod scene;
pub mod ui;
