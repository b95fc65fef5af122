//! SQL and nothing but SQL, and the projector that feeds the ledger from the journal.

pub mod accounts;
pub mod admin_keys;
pub mod audit;
pub mod batch_queue;
pub mod buckets;
mod change;
mod columns;
pub mod error;
pub mod export;
mod files;
pub mod last_used;
pub mod ledger;
mod names;
pub mod notices;
pub mod past;
pub mod projector;
pub mod refusals;
mod replay;
pub mod reports;
pub mod reprice;
pub mod requests;
pub mod retention;
mod rollups;
pub mod spend;
mod statement;
mod tariffs;

#[cfg(test)]
mod tests;
#[cfg(test)]
pub(crate) use tests::store as seeded;

use std::{
    fs::{DirBuilder, OpenOptions},
    os::unix::fs::{DirBuilderExt, OpenOptionsExt},
    path::Path,
    sync::{Arc, Mutex},
    time::Duration,
};

use sqlx::{
    ConnectOptions as _, Connection as _, SqliteConnection, SqlitePool,
    migrate::MigrateError,
    sqlite::{SqliteConnectOptions, SqliteJournalMode, SqlitePoolOptions, SqliteSynchronous},
};

use tokio::sync::Semaphore;

pub use error::StoreError;
use files::Files;
pub use files::PutBack;
use names::Names;
pub use projector::{Progress, Projector};

/// Earlier versions can lose commits of a write-ahead log with several connections.
const OLDEST_SQLITE: [u32; 3] = [3, 51, 3];
const READERS: u32 = 4;

/// The database: one connection that writes, a few that only read. Clones share them.
#[derive(Clone)]
pub struct Store {
    writer: SqlitePool,
    reader: SqlitePool,
    files: Arc<Files>,
    names: Arc<Mutex<Names>>,
    directory: Arc<Mutex<Arc<reports::Directory>>>,
    /// Whose turn it is to read the ledger through.
    scan: Arc<Semaphore>,
}

impl Store {
    /// Opens the database, or makes one, and brings its schema up to date.
    pub async fn open(path: &Path) -> Result<Self, StoreError> {
        Self::open_watched(path, |pool| pool).await
    }

    /// Opens the database of a gateway that may be running on it: it is neither made nor brought up to date.
    pub async fn open_existing(path: &Path) -> Result<Self, StoreError> {
        let store = Self::pools(path, |pool| pool).await?;
        check_schema(&mut *store.reader.acquire().await?).await?;
        Ok(store)
    }

    /// `watch` may look at each use of a connection.
    async fn open_watched(
        path: &Path,
        watch: impl Fn(SqlitePoolOptions) -> SqlitePoolOptions,
    ) -> Result<Self, StoreError> {
        create_private(path).map_err(|source| StoreError::File { path: path.to_owned(), source })?;
        let opened = Self::connect(path, watch).await;
        opened.map_err(|error| if error.is_damage() { error.in_file(path) } else { error })
    }

    async fn connect(path: &Path, watch: impl Fn(SqlitePoolOptions) -> SqlitePoolOptions) -> Result<Self, StoreError> {
        let store = Self::pools(path, watch).await?;
        migrate(&store.writer).await?;
        store.sum_up_if_new().await?;
        Ok(store)
    }

    /// The connections alone; nothing is written.
    async fn pools(path: &Path, watch: impl Fn(SqlitePoolOptions) -> SqlitePoolOptions) -> Result<Self, StoreError> {
        let files = Arc::new(Files::at(path));
        let opened = Arc::clone(&files);
        let pool = SqlitePoolOptions::new()
            .max_connections(1)
            // Kept open, so that the log's file stays the same one.
            .idle_timeout(None)
            .max_lifetime(None)
            .after_connect(move |connection, _| Box::pin(note_files(Arc::clone(&opened), connection)))
            .after_release(|connection, _| Box::pin(is_usable(connection)));
        let writer = watch(pool).connect_with(options(path)).await?;
        check_version(&writer).await?;
        let read_only = options(path).read_only(true).pragma("query_only", "ON");
        let read = Arc::clone(&files);
        let pool = SqlitePoolOptions::new()
            .max_connections(READERS)
            // At least one is kept: should the files be deleted, it has them still.
            .idle_timeout(None)
            .max_lifetime(None)
            .before_acquire(move |_, connection| {
                let is_current = read.are_read_by(connection.age);
                Box::pin(async move { Ok(is_current) })
            });
        let reader = watch(pool).connect_with(read_only).await?;
        let scan = Arc::new(Semaphore::new(1));
        Ok(Self { writer, reader, files, names: Arc::default(), directory: Arc::default(), scan })
    }

    /// One connection of its own to a database file that others may be writing, as it is: nothing is brought up to date.
    async fn connect_to_read(path: &Path) -> Result<SqliteConnection, StoreError> {
        let options = SqliteConnectOptions::new().filename(path).read_only(true).pragma("query_only", "ON");
        Ok(options.connect().await?)
    }

    /// For reports: many at a time, and they never wait for the writer.
    pub const fn reader(&self) -> &SqlitePool {
        &self.reader
    }

    pub const fn writer(&self) -> &SqlitePool {
        &self.writer
    }

    /// Ends all connections; the write-ahead log goes into the database file.
    pub async fn close(&self) {
        self.reader.close().await;
        self.writer.close().await;
    }

    /// Brings the write-ahead log into the database file and syncs it; false when a long read is in the way.
    pub async fn checkpoint(&self) -> Result<bool, StoreError> {
        let (busy, log, done): (i64, i64, i64) =
            sqlx::query_as("PRAGMA wal_checkpoint(PASSIVE)").fetch_one(&self.writer).await?;
        Ok(busy == 0 && log == done)
    }
}

/// A read opens the log's file, which the connection would do with its first use.
async fn note_files(files: Arc<Files>, connection: &mut SqliteConnection) -> sqlx::Result<()> {
    sqlx::query("SELECT count(*) FROM sqlite_schema").execute(connection).await?;
    files.opened().map_err(sqlx::Error::Io)
}

/// False for a connection that is still in a transaction: when the disk is full SQLite rolls back by itself, the rollback
/// that follows fails, and a connection that believes itself in a transaction begins no other one, for ever.
async fn is_usable(connection: &mut SqliteConnection) -> sqlx::Result<bool> {
    // The rollback of a dropped transaction goes before.
    connection.ping().await?;
    if connection.is_in_transaction() {
        return Ok(false);
    }
    // What a change to accounts has raised; the ledger's commits need no more.
    sqlx::query("PRAGMA synchronous = NORMAL").execute(connection).await?;
    Ok(true)
}

fn options(path: &Path) -> SqliteConnectOptions {
    SqliteConnectOptions::new()
        .filename(path)
        .journal_mode(SqliteJournalMode::Wal)
        // The journal is what survives; the ledger is fed again from it.
        .synchronous(SqliteSynchronous::Normal)
        .busy_timeout(Duration::from_secs(5))
        .foreign_keys(true)
        .pragma("wal_autocheckpoint", "4000")
        .pragma("journal_size_limit", "67108864")
        .pragma("temp_store", "MEMORY")
}

fn create_private(path: &Path) -> std::io::Result<()> {
    if let Some(dir) = path.parent().filter(|dir| !dir.as_os_str().is_empty()) {
        DirBuilder::new().recursive(true).mode(0o700).create(dir)?;
    }
    OpenOptions::new().create(true).append(true).mode(0o600).open(path).map(drop)
}

async fn check_version(pool: &SqlitePool) -> Result<(), StoreError> {
    let found: String = sqlx::query_scalar("SELECT sqlite_version()").fetch_one(pool).await?;
    let parts: Vec<u32> = found.split('.').map_while(|part| part.parse().ok()).collect();
    if parts.as_slice() < OLDEST_SQLITE.as_slice() {
        return Err(StoreError::OldSqlite { found });
    }
    Ok(())
}

async fn migrate(pool: &SqlitePool) -> Result<(), StoreError> {
    sqlx::migrate!("./migrations").run(pool).await.map_err(|error| match error {
        MigrateError::VersionMissing(version) => StoreError::NewerDatabase { version },
        other => other.into(),
    })
}

/// Refuses a schema that is not the one this program knows.
async fn check_schema(connection: &mut SqliteConnection) -> Result<(), StoreError> {
    let known = sqlx::migrate!("./migrations").iter().map(|migration| migration.version).max();
    let applied = sqlx::query_scalar("SELECT max(version) FROM _sqlx_migrations WHERE success");
    let applied = applied.fetch_one(&mut *connection).await;
    // Without that table nothing was ever applied.
    let applied: Option<i64> = applied.unwrap_or_default();
    match applied {
        // An upgrade that was interrupted goes on with the next start of the gateway.
        _ if applied == known && rollups::is_summed_up(connection).await? => Ok(()),
        Some(version) if applied > known => Err(StoreError::NewerDatabase { version }),
        _ => Err(StoreError::OlderDatabase),
    }
}
