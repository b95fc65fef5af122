//! Parquet, with dollars as `DECIMAL(38, 12)`. Rows wait in memory until they make a row group.

use std::{io::Write, sync::Arc};

use ::parquet::{
    basic::{Compression, LogicalType, Repetition, TimeUnit, Type as Physical},
    data_type::{BoolType, ByteArray, ByteArrayType, FixedLenByteArray, FixedLenByteArrayType, Int64Type},
    errors::ParquetError,
    file::{
        properties::{EnabledStatistics, WriterProperties},
        writer::{SerializedColumnWriter, SerializedFileWriter},
    },
    schema::types::{Type, TypePtr},
};

use super::{
    WriteError,
    columns::{COLUMNS, Column, Kind, Value},
};
use crate::domain::export::ExportedEntry;

/// Some twenty megabytes of entries. Fewer would make more groups, whose descriptions are kept until the end of the file.
const ROWS_PER_GROUP: usize = 32_768;
const DECIMAL_BYTES: i32 = 16;

pub(super) struct Parquet<W: Write + Send> {
    file: SerializedFileWriter<W>,
    waiting: Vec<ExportedEntry>,
    rows_per_group: usize,
}

impl<W: Write + Send> Parquet<W> {
    pub(super) fn begin(out: W) -> Result<Self, WriteError> {
        let properties = WriterProperties::builder()
            .set_compression(Compression::SNAPPY)
            .set_statistics_enabled(EnabledStatistics::Chunk)
            .set_offset_index_disabled(true)
            .set_created_by(concat!("tollgate ", env!("CARGO_PKG_VERSION")).to_owned())
            .build();
        let file = SerializedFileWriter::new(out, schema()?, Arc::new(properties))?;
        Ok(Self { file, waiting: Vec::new(), rows_per_group: ROWS_PER_GROUP })
    }

    pub(super) fn write(&mut self, entry: ExportedEntry) -> Result<(), WriteError> {
        self.waiting.push(entry);
        if self.waiting.len() >= self.rows_per_group { self.write_group() } else { Ok(()) }
    }

    fn write_group(&mut self) -> Result<(), WriteError> {
        let mut group = self.file.next_row_group()?;
        for column in COLUMNS.iter() {
            let mut writer = group.next_column()?.ok_or_else(|| mismatch(column))?;
            write_column(&mut writer, column, &self.waiting)?;
            writer.close()?;
        }
        group.close()?;
        self.waiting.clear();
        Ok(())
    }

    /// Writes what waits and the end of the file.
    pub(super) fn finish(mut self) -> Result<W, WriteError> {
        if !self.waiting.is_empty() {
            self.write_group()?;
        }
        Ok(self.file.into_inner()?)
    }
}

fn schema() -> Result<TypePtr, ParquetError> {
    let fields: Result<Vec<_>, _> = COLUMNS.iter().map(|column| field(column).map(Arc::new)).collect();
    Ok(Arc::new(Type::group_type_builder("entry").with_fields(fields?).build()?))
}

fn field(column: &Column) -> Result<Type, ParquetError> {
    const PRECISION: i32 = 38;
    const SCALE: i32 = 12;
    let of = |physical| {
        let repetition = if column.optional { Repetition::OPTIONAL } else { Repetition::REQUIRED };
        Type::primitive_type_builder(&column.name, physical).with_repetition(repetition)
    };
    match column.kind {
        Kind::Text => of(Physical::BYTE_ARRAY).with_logical_type(Some(LogicalType::String)),
        Kind::Time => of(Physical::INT64).with_logical_type(Some(LogicalType::timestamp(true, TimeUnit::MILLIS))),
        Kind::Whole => of(Physical::INT64),
        Kind::Money => of(Physical::FIXED_LEN_BYTE_ARRAY)
            .with_length(DECIMAL_BYTES)
            .with_precision(PRECISION)
            .with_scale(SCALE)
            .with_logical_type(Some(LogicalType::decimal(SCALE, PRECISION))),
        Kind::Flag => of(Physical::BOOLEAN),
    }
    .build()
}

/// The values of a column for some entries, without those that are nothing.
#[derive(Default)]
struct Values {
    texts: Vec<ByteArray>,
    numbers: Vec<i64>,
    amounts: Vec<FixedLenByteArray>,
    flags: Vec<bool>,
    /// 1 for each entry that has a value, 0 for each that has none.
    present: Vec<i16>,
}

impl Values {
    fn add(&mut self, value: Value<'_>) {
        let mut present = true;
        match value {
            Value::Text(text) => self.texts.push(text.into_owned().into_bytes().into()),
            Value::Whole(number) => self.numbers.push(number),
            Value::Time(Some(time)) => self.numbers.push(i64::try_from(time.millis()).unwrap_or(i64::MAX)),
            Value::Money(Some(money)) => self.amounts.push(money.pico().to_be_bytes().to_vec().into()),
            Value::Flag(flag) => self.flags.push(flag),
            Value::Time(None) | Value::Money(None) => present = false,
        }
        self.present.push(i16::from(present));
    }
}

fn write_column(
    writer: &mut SerializedColumnWriter<'_>,
    column: &Column,
    entries: &[ExportedEntry],
) -> Result<(), WriteError> {
    let mut values = Values::default();
    for entry in entries {
        values.add(column.value(entry)?);
    }
    let present = column.optional.then_some(values.present.as_slice());
    let written = match column.kind {
        Kind::Text => writer.typed::<ByteArrayType>().write_batch(&values.texts, present, None),
        Kind::Time | Kind::Whole => writer.typed::<Int64Type>().write_batch(&values.numbers, present, None),
        Kind::Money => writer.typed::<FixedLenByteArrayType>().write_batch(&values.amounts, present, None),
        Kind::Flag => writer.typed::<BoolType>().write_batch(&values.flags, present, None),
    };
    written.map(drop).map_err(WriteError::from)
}

fn mismatch(column: &Column) -> ParquetError {
    ParquetError::General(format!("no place for the column {}", column.name))
}

#[cfg(test)]
mod tests {
    use std::borrow::Cow;

    use ::parquet::{
        data_type::{AsBytes, Decimal},
        file::{
            metadata::RowGroupMetaData,
            reader::{FileReader, SerializedFileReader},
        },
        record::Field,
    };
    use bytes::Bytes;

    use super::*;
    use crate::domain::{
        export::{
            Adjusted,
            samples::{exported, unpriced},
        },
        money::Total,
        time::UnixNanos,
    };

    /// As a reader of the file sees it.
    fn seen(kind: Kind, field: &Field) -> Value<'static> {
        match field {
            Field::Null if kind == Kind::Money => Value::Money(None),
            Field::Null => Value::Time(None),
            Field::Str(text) => Value::Text(Cow::Owned(text.clone())),
            Field::Long(number) => Value::Whole(*number),
            Field::TimestampMillis(ms) => Value::Time(Some(UnixNanos::from_millis((*ms).try_into().unwrap()))),
            Field::Bool(flag) => Value::Flag(*flag),
            Field::Decimal(decimal @ Decimal::Bytes { .. }) => {
                assert_eq!((decimal.precision(), decimal.scale()), (38, 12));
                Value::Money(Some(Total::from_pico(i128::from_be_bytes(decimal.as_bytes().try_into().unwrap()))))
            }
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn a_file_reads_back_as_the_entries_it_was_made_of() {
        let adjusted = |pico| Some(Adjusted { amount: Total::from_pico(pico), priced_since: true });
        let mut entries: Vec<_> = (0..5).map(exported).collect();
        entries.push(ExportedEntry { project_name: "=1, \"ü\"\n".to_owned(), ..unpriced(6) });
        entries.push(ExportedEntry { adjusted: adjusted(-7), stream: true, ..exported(7) });
        entries.push(ExportedEntry { adjusted: adjusted(i128::from(i64::MAX) * 5), ..unpriced(8) });
        let mut parquet = Parquet::begin(Vec::new()).unwrap();
        parquet.rows_per_group = 3;
        for entry in &entries {
            parquet.write(entry.clone()).unwrap();
        }
        let file = SerializedFileReader::new(Bytes::from(parquet.finish().unwrap())).unwrap();
        let groups = file.metadata().row_groups().iter().map(RowGroupMetaData::num_rows).collect::<Vec<_>>();
        assert_eq!(groups, [3, 3, 2]);
        let rows: Vec<_> = file.get_row_iter(None).unwrap().map(Result::unwrap).collect();
        assert_eq!(rows.len(), entries.len());
        for (row, entry) in rows.iter().zip(&entries) {
            for ((name, field), column) in row.get_column_iter().zip(COLUMNS.iter()) {
                let written = match column.value(entry).unwrap() {
                    Value::Time(time) => Value::Time(time.map(|time| UnixNanos::from_millis(time.millis()))),
                    value => value,
                };
                assert_eq!((name, seen(column.kind, field)), (&column.name, written));
            }
        }
    }

    #[test]
    fn a_file_without_entries_is_still_a_file() {
        let bytes = Parquet::begin(Vec::new()).unwrap().finish().unwrap();
        let file = SerializedFileReader::new(Bytes::from(bytes)).unwrap();
        assert_eq!(file.metadata().file_metadata().num_rows(), 0);
        assert_eq!(file.metadata().file_metadata().schema_descr().num_columns(), COLUMNS.len());
    }
}
