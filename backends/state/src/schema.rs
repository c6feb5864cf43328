//! The version of the file, and how an older one becomes a newer one.
//!
//! A migration runs in one transaction together with the new version number, so `kill -9` leaves the old file or the new
//! one; before it a copy of the file is kept beside it.

use std::path::{Path, PathBuf};

use redb::{ReadableDatabase, TableDefinition, TableHandle, WriteTransaction};

use crate::error::of_io;
use crate::{Kind, Result, StateError};

/// Single numbers: `version`, `revision`, `log_floor`.
pub(crate) const META: TableDefinition<'static, &str, u64> = TableDefinition::new("meta");
const VERSION_KEY: &str = "version";

/// Turns a file of version `from` into one of `from + 1`.
pub(crate) struct Migration {
    pub(crate) from: u32,
    pub(crate) run: fn(&WriteTransaction) -> Result<()>,
}

/// What this binary reads.
pub(crate) struct Schema {
    pub(crate) version: u32,
    pub(crate) migrations: &'static [Migration],
}

/// The schema of this release.
pub(crate) const CURRENT: Schema = Schema {
    version: 1,
    migrations: &[],
};

/// What a file needs before it can be used.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Need {
    Nothing,
    /// It is empty.
    Stamp,
    /// It is of this older version.
    Migrate(u32),
}

/// Reads the version of a file.
pub(crate) fn examine(db: &redb::Database, path: &Path, schema: &Schema) -> Result<Need> {
    let what = format!("reading the version of {}", path.display());
    let fail = |e: redb::Error| StateError::of_redb(&what, e);
    let txn = db.begin_read().map_err(|e| fail(e.into()))?;
    let tables: Vec<String> = txn
        .list_tables()
        .map_err(|e| fail(e.into()))?
        .map(|t| t.name().to_owned())
        .collect();
    if tables.is_empty() {
        return Ok(Need::Stamp);
    }
    let foreign = || {
        StateError::new(
            Kind::Corrupt,
            format!(
                "{} has no version: it is not a windlass state; it was left unchanged",
                path.display()
            ),
        )
        .hint("name another directory with --state-dir")
    };
    if !tables.iter().any(|t| t == META.name()) {
        return Err(foreign());
    }
    let meta = txn.open_table(META).map_err(|e| fail(e.into()))?;
    let found = meta
        .get(VERSION_KEY)
        .map_err(|e| fail(e.into()))?
        .ok_or_else(foreign)?
        .value();
    let found = u32::try_from(found).unwrap_or(u32::MAX);
    if found == schema.version {
        return Ok(Need::Nothing);
    }
    if found > schema.version {
        return Err(StateError::new(
            Kind::Newer,
            format!(
                "{} is of state version {found}; this windlass reads up to {}; it was left unchanged",
                path.display(),
                schema.version
            ),
        )
        .hint(format!(
            "use a windlass that reads state version {found}, or name another directory with --state-dir"
        )));
    }
    Ok(Need::Migrate(found))
}

/// Writes the version into an empty file.
pub(crate) fn stamp(db: &redb::Database, path: &Path, schema: &Schema) -> Result<()> {
    in_one_transaction(db, path, |txn| set_version(txn, path, schema.version))
}

/// Carries a file from `found` to the schema's version.
pub(crate) fn migrate(db: &redb::Database, path: &Path, schema: &Schema, found: u32) -> Result<()> {
    in_one_transaction(db, path, |txn| {
        for version in found..schema.version {
            let step = schema.migrations.iter().find(|m| m.from == version).ok_or_else(|| {
                StateError::new(
                    Kind::Newer,
                    format!(
                        "{} is of state version {found}; this windlass can't carry version {version} further; it was left unchanged",
                        path.display()
                    ),
                )
                .hint("start an older windlass on it first: version N reads N-1")
            })?;
            (step.run)(txn)?;
        }
        set_version(txn, path, schema.version)
    })
}

/// Where the copy of a file of version `found` is kept.
pub(crate) fn copy_path(path: &Path, found: u32) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(format!(".v{found}"));
    PathBuf::from(name)
}

/// Keeps a copy of a closed file; whole and durable, or not there. An earlier copy of the same version stays.
pub(crate) fn keep_copy(path: &Path, found: u32) -> Result<PathBuf> {
    let copy = copy_path(path, found);
    if copy.exists() {
        return Ok(copy);
    }
    let mut unfinished = copy.as_os_str().to_owned();
    unfinished.push(".tmp");
    let unfinished = PathBuf::from(unfinished);
    let done = std::fs::copy(path, &unfinished)
        .and_then(|_bytes| std::fs::File::open(&unfinished)?.sync_all())
        .and_then(|()| std::fs::rename(&unfinished, &copy))
        .and_then(|()| sync_parent(&copy));
    done.map_err(|e| {
        StateError::new(
            of_io(&e),
            format!(
                "can't keep a copy of {} at {} before migrating it: {e}; it was left unchanged",
                path.display(),
                copy.display()
            ),
        )
        .caused_by(e)
    })?;
    Ok(copy)
}

/// Makes a new name in its directory survive power loss.
pub(crate) fn sync_parent(path: &Path) -> std::io::Result<()> {
    match path.parent() {
        Some(dir) if !dir.as_os_str().is_empty() => std::fs::File::open(dir)?.sync_all(),
        _ => Ok(()),
    }
}

fn set_version(txn: &WriteTransaction, path: &Path, version: u32) -> Result<()> {
    let what = format!("writing the version of {}", path.display());
    let mut meta = txn.open_table(META).map_err(|e| StateError::of_redb(&what, e))?;
    meta.insert(VERSION_KEY, u64::from(version))
        .map_err(|e| StateError::of_redb(&what, e))?;
    Ok(())
}

fn in_one_transaction(
    db: &redb::Database,
    path: &Path,
    work: impl FnOnce(&WriteTransaction) -> Result<()>,
) -> Result<()> {
    let what = format!("writing {}", path.display());
    let txn = db.begin_write().map_err(|e| StateError::of_redb(&what, e))?;
    work(&txn)?;
    txn.commit().map_err(|e| StateError::of_redb(&what, e))
}
