//! The one file of a state directory: its lock, its version, its transactions.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use redb::{Durability, ReadTransaction, ReadableDatabase, WriteTransaction};
use tokio::sync::watch;

use crate::error::of_io;
use crate::schema::{self, CURRENT, Need, Schema};
use crate::{Kind, Result, StateError};

/// The file within the state directory.
pub const FILE_NAME: &str = "windlass.redb";
/// Who had the file open last: a process id, for the message to a second opener. Means something only while the lock is held.
const PID_FILE_NAME: &str = "windlass.pid";
/// Memory that redb may cache with, in bytes.
const CACHE_BYTES_MAX: usize = 32 << 20;

/// An open state file; clones share it. The lock goes when the last clone is dropped.
#[derive(Clone)]
pub struct Database {
    inner: Arc<Held>,
    path: Arc<Path>,
    // the newest revision, so that watches wake
    pub(crate) revisions: Arc<watch::Sender<u64>>,
}

impl Database {
    /// Opens `state_dir`/[`FILE_NAME`], creating the directory (mode 0700) and the file where they are missing, and migrates
    /// an older file after keeping a copy.
    ///
    /// # Errors
    /// `Locked` when another process holds it, `Newer` for a file of a newer version, `Corrupt`, `Denied`, `Full`.
    pub async fn open(state_dir: impl Into<PathBuf>) -> Result<Self> {
        let state_dir = state_dir.into();
        blocking(move || Self::open_with(&state_dir, &CURRENT)).await
    }

    /// A database that is gone when it is dropped: for fakes.
    ///
    /// # Errors
    /// As redb's.
    pub fn in_memory() -> Result<Self> {
        let path = Path::new("(memory)");
        let db = redb::Builder::new()
            .create_with_backend(redb::backends::InMemoryBackend::new())
            .map_err(|e| StateError::of_redb("opening a database in memory", e))?;
        schema::stamp(&db, path, &CURRENT)?;
        Ok(Self::wrap(db, path))
    }

    pub(crate) fn open_with(state_dir: &Path, schema: &Schema) -> Result<Self> {
        make_dir(state_dir)?;
        let path = state_dir.join(FILE_NAME);
        if !path.exists() {
            lay_down(&path, schema)?;
        }
        let mut db = open_file(state_dir, &path)?;
        match schema::examine(&db, &path, schema)? {
            Need::Nothing => {}
            Need::Stamp => {
                schema::stamp(&db, &path, schema)?;
                schema::sync_parent(&path).map_err(|e| io_error("writing", &path, e))?;
            }
            Need::Migrate(found) => {
                // closed for the copy: closing a second descriptor of the file would take redb's lock with it
                drop(db);
                db = migrated(state_dir, &path, schema, found)?;
            }
        }
        let _only_for_messages = std::fs::write(state_dir.join(PID_FILE_NAME), format!("{}\n", std::process::id()));
        Ok(Self::wrap(db, &path))
    }

    fn wrap(db: redb::Database, path: &Path) -> Self {
        Self {
            inner: Arc::new(Held {
                db,
                closed: watch::channel(()).0,
            }),
            path: path.into(),
            revisions: Arc::new(watch::channel(0).0),
        }
    }

    /// Tells when the last clone, this one included, has gone and the lock with it.
    pub fn release(&self) -> Release {
        Release(self.inner.closed.subscribe())
    }

    /// Where the file is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Runs `work` in a transaction on a blocking thread; durable when this returns `Ok`, undone when `work` fails.
    ///
    /// # Errors
    /// What `work` returns, or redb's.
    pub async fn write<T, E>(
        &self,
        work: impl FnOnce(&WriteTransaction) -> std::result::Result<T, E> + Send + 'static,
    ) -> std::result::Result<T, E>
    where
        T: Send + 'static,
        E: From<StateError> + Send + 'static,
    {
        self.write_with(Durability::Immediate, work).await
    }

    /// As [`Database::write`], for what may be lost by a crash (progress): durable with the next durable transaction.
    ///
    /// # Errors
    /// What `work` returns, or redb's.
    pub async fn write_lazily<T, E>(
        &self,
        work: impl FnOnce(&WriteTransaction) -> std::result::Result<T, E> + Send + 'static,
    ) -> std::result::Result<T, E>
    where
        T: Send + 'static,
        E: From<StateError> + Send + 'static,
    {
        self.write_with(Durability::None, work).await
    }

    async fn write_with<T, E>(
        &self,
        durability: Durability,
        work: impl FnOnce(&WriteTransaction) -> std::result::Result<T, E> + Send + 'static,
    ) -> std::result::Result<T, E>
    where
        T: Send + 'static,
        E: From<StateError> + Send + 'static,
    {
        let this = self.clone();
        blocking(move || {
            let what = || format!("writing {}", this.path.display());
            let mut txn = this
                .inner
                .db
                .begin_write()
                .map_err(|e| StateError::of_redb(&what(), e))?;
            txn.set_durability(durability)
                .map_err(|e| StateError::of_redb(&what(), e))?;
            let value = work(&txn)?;
            txn.commit().map_err(|e| not_known(&this.path, e))?;
            Ok(value)
        })
        .await
    }

    /// Runs `work` on a snapshot of the file, on a blocking thread.
    ///
    /// # Errors
    /// What `work` returns, or redb's.
    pub async fn read<T, E>(
        &self,
        work: impl FnOnce(&ReadTransaction) -> std::result::Result<T, E> + Send + 'static,
    ) -> std::result::Result<T, E>
    where
        T: Send + 'static,
        E: From<StateError> + Send + 'static,
    {
        let this = self.clone();
        blocking(move || {
            let what = || format!("reading {}", this.path.display());
            let txn = this
                .inner
                .db
                .begin_read()
                .map_err(|e| StateError::of_redb(&what(), e))?;
            work(&txn)
        })
        .await
    }
}

/// The open file. Fields are dropped in their order: whoever waits for `closed` hears of it when redb has let go of the lock.
struct Held {
    db: redb::Database,
    closed: watch::Sender<()>,
}

/// Waits for the end of a [`Database`] that others hold too, on threads of their own.
#[derive(Debug, Clone)]
pub struct Release(watch::Receiver<()>);

impl Release {
    /// Returns once the lock is free, or after `patience`: true when it is free.
    pub async fn wait(&self, patience: std::time::Duration) -> bool {
        let mut closed = self.0.clone();
        // nothing is ever sent: this ends when the sender is gone
        tokio::time::timeout(patience, async { while closed.changed().await.is_ok() {} })
            .await
            .is_ok()
    }
}

impl std::fmt::Debug for Database {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Database").field("path", &self.path).finish()
    }
}

/// redb blocks on the disk and, on a file that something else wrote into, may panic: neither may reach the caller.
async fn blocking<T, E>(work: impl FnOnce() -> std::result::Result<T, E> + Send + 'static) -> std::result::Result<T, E>
where
    T: Send + 'static,
    E: From<StateError> + Send + 'static,
{
    tokio::task::spawn_blocking(work).await.unwrap_or_else(|e| {
        let (kind, why) = if e.is_panic() {
            (Kind::Corrupt, "its file can't be read as redb wrote it")
        } else {
            (Kind::Unavailable, "the process is ending")
        };
        Err(
            StateError::new(kind, format!("the state can't be used: {why}; nothing was changed"))
                .caused_by(e)
                .into(),
        )
    })
}

fn not_known(path: &Path, e: redb::CommitError) -> StateError {
    let e = redb::Error::from(e);
    let kind = match &e {
        redb::Error::Io(io) => of_io(io),
        _ => Kind::Unavailable,
    };
    let message = format!(
        "committing to {}: {e}; it is not known whether the change was kept",
        path.display()
    );
    StateError::new(kind, message).caused_by(e)
}

/// Makes the directory and those above it that are missing, durably: what is kept in it must not vanish with its name.
fn make_dir(dir: &Path) -> Result<()> {
    use std::os::unix::fs::DirBuilderExt;
    let failed = |e| io_error("creating the state directory", dir, e).hint("name another one with --state-dir");
    let missing: Vec<&Path> = dir
        .ancestors()
        .take_while(|a| !a.as_os_str().is_empty() && !a.exists())
        .collect();
    std::fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(dir)
        .map_err(failed)?;
    missing.into_iter().try_for_each(schema::sync_parent).map_err(failed)
}

/// Makes a whole, stamped file appear at `path` at once. redb writes a new file in place, in several steps: a power loss
/// between them would leave one that is no database. Where two processes do this, one file wins and the other is dropped.
fn lay_down(path: &Path, schema: &Schema) -> Result<()> {
    let draft = path.with_extension(format!("redb.new-{}", std::process::id()));
    let failed = |e| io_error("writing", path, e);
    let _from_a_dead_process_of_this_id = std::fs::remove_file(&draft);
    let db = open_file(path.parent().unwrap_or(path), &draft)?;
    schema::stamp(&db, &draft, schema)?;
    drop(db);
    std::fs::File::open(&draft).and_then(|f| f.sync_all()).map_err(failed)?;
    // a link, for it never takes the place of another file
    let linked = match std::fs::hard_link(&draft, path) {
        Err(e) if e.kind() != std::io::ErrorKind::AlreadyExists => Err(failed(e)),
        _ => schema::sync_parent(path).map_err(failed),
    };
    std::fs::remove_file(&draft).map_err(failed)?;
    linked
}

fn io_error(what: &str, path: &Path, e: std::io::Error) -> StateError {
    StateError::new(
        of_io(&e),
        format!("{what} {}: {e}; nothing was changed", path.display()),
    )
    .caused_by(e)
}

fn open_file(state_dir: &Path, path: &Path) -> Result<redb::Database> {
    let opened = catch_unwind(AssertUnwindSafe(|| {
        redb::Builder::new().set_cache_size(CACHE_BYTES_MAX).create(path)
    }));
    match opened {
        Ok(Ok(db)) => Ok(db),
        Ok(Err(redb::DatabaseError::DatabaseAlreadyOpen)) => Err(locked(state_dir, path)),
        Ok(Err(e)) => Err(StateError::of_redb(&format!("opening {}", path.display()), e)),
        Err(_panic) => Err(StateError::new(
            Kind::Corrupt,
            format!(
                "{} can't be read as redb wrote it; it was left unchanged",
                path.display()
            ),
        )
        .hint("move the file away and start again: jobs and leases are lost, repositories are not")),
    }
}

fn locked(state_dir: &Path, path: &Path) -> StateError {
    let holder = std::fs::read_to_string(state_dir.join(PID_FILE_NAME))
        .ok()
        .and_then(|text| text.trim().parse::<u32>().ok())
        .map_or_else(String::new, |pid| format!(" (process {pid})"));
    StateError::new(
        Kind::Locked,
        format!(
            "{} is held by another windlass{holder}, a daemon or a running command; one process at a time may use a state directory; nothing was changed",
            path.display()
        ),
    )
    .hint("ask that daemon instead (windlass status), wait for the command, or name another directory with --state-dir")
}

fn migrated(state_dir: &Path, path: &Path, schema: &Schema, found: u32) -> Result<redb::Database> {
    let copy = schema::keep_copy(path, found)?;
    let db = open_file(state_dir, path)?;
    // between closing and opening another process may have been quicker
    if let Need::Migrate(found) = schema::examine(&db, path, schema)? {
        schema::migrate(&db, path, schema, found)?;
        tracing::info!(file = %path.display(), from = found, to = schema.version, copy = %copy.display(), "state migrated");
    }
    Ok(db)
}
