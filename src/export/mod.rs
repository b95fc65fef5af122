//! Entries of the ledger as files: CSV, JSON lines and Parquet, written one after the other to anything that takes bytes. All
//! three have the same columns, and no amount is rounded in any of them.

mod columns;
mod csv;
mod jsonl;
mod parquet;

use std::io::{self, Write};

use crate::domain::{export::ExportedEntry, money::MoneyError};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    Csv,
    Jsonl,
    Parquet,
}

impl Format {
    /// Something that a person can read on a screen.
    pub const fn is_text(self) -> bool {
        !matches!(self, Self::Parquet)
    }
}

#[derive(Debug, thiserror::Error)]
pub enum WriteError {
    #[error(transparent)]
    Io(#[from] io::Error),
    #[error("{0}")]
    Parquet(::parquet::errors::ParquetError),
    #[error("an amount: {0}")]
    Amount(#[from] MoneyError),
}

impl WriteError {
    /// Nobody is left to read.
    pub fn is_closed_pipe(&self) -> bool {
        matches!(self, Self::Io(error) if error.kind() == io::ErrorKind::BrokenPipe)
    }
}

/// The Parquet library wraps errors of the output.
impl From<::parquet::errors::ParquetError> for WriteError {
    fn from(error: ::parquet::errors::ParquetError) -> Self {
        match error {
            ::parquet::errors::ParquetError::External(cause) => match cause.downcast::<io::Error>() {
                Ok(error) => Self::Io(*error),
                Err(cause) => Self::Parquet(::parquet::errors::ParquetError::External(cause)),
            },
            error => Self::Parquet(error),
        }
    }
}

/// A file under way. It is whole only after [`Writer::finish`].
pub struct Writer<W: Write + Send>(Kind<W>);

enum Kind<W: Write + Send> {
    Csv(csv::Csv<W>),
    Jsonl(jsonl::Jsonl<W>),
    Parquet(Box<parquet::Parquet<W>>),
}

impl<W: Write + Send> Writer<W> {
    pub fn begin(format: Format, out: W) -> Result<Self, WriteError> {
        Ok(Self(match format {
            Format::Csv => Kind::Csv(csv::Csv::begin(out)?),
            Format::Jsonl => Kind::Jsonl(jsonl::Jsonl::begin(out)),
            Format::Parquet => Kind::Parquet(Box::new(parquet::Parquet::begin(out)?)),
        }))
    }

    pub fn write(&mut self, entry: ExportedEntry) -> Result<(), WriteError> {
        match &mut self.0 {
            Kind::Csv(csv) => csv.write(&entry),
            Kind::Jsonl(jsonl) => jsonl.write(&entry),
            Kind::Parquet(parquet) => parquet.write(entry),
        }
    }

    /// Writes what is left, and hands the output back.
    pub fn finish(self) -> Result<W, WriteError> {
        let mut out = match self.0 {
            Kind::Csv(csv) => csv.finish(),
            Kind::Jsonl(jsonl) => jsonl.finish(),
            Kind::Parquet(parquet) => parquet.finish()?,
        };
        out.flush()?;
        Ok(out)
    }
}
