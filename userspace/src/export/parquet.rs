//! The table as Parquet: zstd, text as dictionaries, and groups of rows that are written as soon as they are full.

use std::{borrow::Cow, io::Write, sync::Arc};

use parquet::{
    basic::{Compression, LogicalType, Repetition, TimeUnit, Type as Physical, ZstdLevel},
    data_type::{ByteArray, ByteArrayType, Int32Type, Int64Type},
    file::{
        metadata::KeyValue,
        properties::WriterProperties,
        writer::{SerializedColumnWriter, SerializedFileWriter},
    },
    schema::types::{Type, TypePtr},
};

use super::{
    ExportError, Last, Now, Sink,
    rows::{COLUMNS, Cell, Kind, Row},
};
use crate::{
    recording::{header::Header, replay::Step},
    view::json,
};

/// Rows of a group: what is held in memory until they are written, some 20 MiB.
const ROWS: usize = 1 << 17;

/// The values of one column that wait to be written.
enum Values {
    Int32(Vec<i32>),
    Int64(Vec<i64>),
    Text(Vec<ByteArray>),
}

struct Waiting {
    values: Values,
    /// For each row whether it has a value.
    has: Vec<i16>,
}

/// A table that is being written.
pub struct Parquet {
    writer: SerializedFileWriter<Box<dyn Write + Send>>,
    columns: Vec<Waiting>,
    rows: usize,
}

fn schema() -> Result<TypePtr, ExportError> {
    let field = |column: &super::rows::Column| {
        let unsigned = |bit_width| LogicalType::integer(bit_width, false);
        let (physical, logical) = match column.kind {
            Kind::Realtime => (Physical::INT64, LogicalType::timestamp(true, TimeUnit::NANOS)),
            Kind::Number | Kind::Word => (Physical::INT64, unsigned(64)),
            Kind::Small => (Physical::INT32, unsigned(32)),
            Kind::Text => (Physical::BYTE_ARRAY, LogicalType::String),
        };
        let builder = Type::primitive_type_builder(column.name, physical);
        let built = builder.with_repetition(Repetition::OPTIONAL).with_logical_type(Some(logical)).build();
        built.map(Arc::new)
    };
    let fields = COLUMNS.iter().map(field).collect::<Result<Vec<_>, _>>()?;
    Ok(Arc::new(Type::group_type_builder("septwatch").with_fields(fields).build()?))
}

impl Parquet {
    /// Begins the file, which also keeps what the recording says of itself, as JSON under `septwatch.recording`.
    pub fn begin(out: Box<dyn Write + Send>, header: &Header) -> Result<Self, ExportError> {
        let about = KeyValue::new("septwatch.recording".to_owned(), json::recording(header).to_string());
        let properties = WriterProperties::builder()
            .set_compression(Compression::ZSTD(ZstdLevel::default()))
            .set_created_by(concat!("septwatch ", env!("CARGO_PKG_VERSION")).to_owned())
            .set_key_value_metadata(Some(vec![about]))
            .build();
        let writer = SerializedFileWriter::new(out, schema()?, Arc::new(properties))?;
        let waiting = |column: &super::rows::Column| Waiting {
            values: match column.kind {
                Kind::Small => Values::Int32(Vec::new()),
                Kind::Text => Values::Text(Vec::new()),
                Kind::Realtime | Kind::Number | Kind::Word => Values::Int64(Vec::new()),
            },
            has: Vec::new(),
        };
        Ok(Self { writer, columns: COLUMNS.iter().map(waiting).collect(), rows: 0 })
    }

    fn flush(&mut self) -> Result<(), ExportError> {
        if self.rows == 0 {
            return Ok(());
        }
        let mut group = self.writer.next_row_group()?;
        let mut columns = self.columns.iter_mut();
        while let (Some(waiting), Some(mut writer)) = (columns.next(), group.next_column()?) {
            waiting.write(&mut writer)?;
            writer.close()?;
        }
        group.close()?;
        self.rows = 0;
        Ok(())
    }
}

impl Waiting {
    fn push(&mut self, cell: Cell) {
        self.has.push(i16::from(cell != Cell::Empty));
        match (&mut self.values, cell) {
            // What is unsigned is kept as the signed number of the same bits.
            (Values::Int32(values), Cell::Number(number)) => values.push(number as u32 as i32),
            (Values::Int64(values), Cell::Number(number)) => values.push(number as i64),
            (Values::Text(values), Cell::Text(text)) => values.push(match text {
                Cow::Borrowed(text) => ByteArray::from(text),
                Cow::Owned(text) => ByteArray::from(text.into_bytes()),
            }),
            // No cell is of another kind than its column.
            _ => {}
        }
    }

    fn write(&mut self, writer: &mut SerializedColumnWriter<'_>) -> Result<(), ExportError> {
        let has = Some(self.has.as_slice());
        match &mut self.values {
            Values::Int32(values) => {
                writer.typed::<Int32Type>().write_batch(values, has, None)?;
                values.clear();
            }
            Values::Int64(values) => {
                writer.typed::<Int64Type>().write_batch(values, has, None)?;
                values.clear();
            }
            Values::Text(values) => {
                writer.typed::<ByteArrayType>().write_batch(values, has, None)?;
                values.clear();
            }
        }
        self.has.clear();
        Ok(())
    }
}

impl Sink for Parquet {
    fn step(&mut self, step: &Step, now: &Now<'_>) -> Result<(), ExportError> {
        let Step::Event { event, found } = step else { return Ok(()) };
        let verdict = found.as_deref().map(|(verdict, _)| verdict);
        let row = Row::of(event, verdict, now.td, &now.header.clock);
        for (column, waiting) in COLUMNS.iter().zip(&mut self.columns) {
            waiting.push((column.cell)(&row));
        }
        self.rows += 1;
        if self.rows == ROWS { self.flush() } else { Ok(()) }
    }

    fn end(&mut self, _: &Last<'_>) -> Result<(), ExportError> {
        self.flush()?;
        self.writer.finish()?;
        Ok(self.writer.inner_mut().flush()?)
    }
}
