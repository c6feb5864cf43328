//! What a member keeps in its own place: its key, and as whom it belongs to which fleet.
//!
//! `identity.key` has the secret, mode 0600; `fleet.json` says who this is and whom it trusted at its beginning. Both appear
//! whole: written beside their place, synced, renamed, and the directory synced. What `kill -9` or a power cut leaves behind is
//! the file of before, or none; a key that nobody was told of is no loss, and the next start takes up one that was.

use std::io::Write as _;
use std::os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use wire::Sender;
use zeroize::Zeroizing;

use crate::core::book::Row;
use crate::core::keys::{Identity, KEY_BYTES, unhexed};
use crate::error::{Kind, TrustError};

const KEY_FILE: &str = "identity.key";
const FLEET_FILE: &str = "fleet.json";
/// What the key's file begins with.
const KEY_BEGIN: &str = "windlass identity v1 ";

/// As whom this place belongs to a fleet.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Belonging {
    /// Who this is.
    pub me: Sender,
    /// As which epoch it was let in; 1 for whoever founded the fleet.
    pub epoch: u64,
    /// Who belonged to the fleet when it was let in, as the granter of its token has signed it; empty for the founder.
    #[serde(default)]
    pub fleet: Vec<Row>,
}

/// A state directory, as far as keys go.
#[derive(Debug, Clone)]
pub struct Place(PathBuf);

impl Place {
    /// The place of this directory.
    pub fn at(state_dir: &Path) -> Self {
        Self(state_dir.to_owned())
    }

    /// The key, and the epoch that it was made for, when there is one.
    ///
    /// # Errors
    /// `Denied` when it can't be read, or others may read it; `Invalid` when it is no key.
    pub fn identity(&self) -> Result<Option<(Identity, u64)>, TrustError> {
        let path = self.0.join(KEY_FILE);
        let metadata = match std::fs::metadata(&path) {
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(None),
            Err(e) => return Err(unread(&path, e)),
            Ok(metadata) => metadata,
        };
        if metadata.permissions().mode() & 0o077 != 0 {
            let message = format!(
                "{}: others than its owner may read this key; it is not used",
                path.display()
            );
            return Err(TrustError::new(Kind::Denied, message).hint(format!(
                "if nobody did: chmod 600 {}; else take it away, and join again",
                path.display()
            )));
        }
        let text = Zeroizing::new(std::fs::read_to_string(&path).map_err(|e| unread(&path, e))?);
        let fields = text
            .trim_end()
            .strip_prefix(KEY_BEGIN)
            .and_then(|rest| rest.split_once(' '));
        let key =
            fields.and_then(|(epoch, seed)| Some((epoch.parse().ok()?, Zeroizing::new(unhexed::<KEY_BYTES>(seed)?))));
        match key {
            Some((epoch, seed)) => Ok(Some((Identity::from_seed(&seed), epoch))),
            None => Err(TrustError::new(
                Kind::Invalid,
                format!("{}: not a key of windlass; it was left unchanged", path.display()),
            )
            .hint("take it away, and join again with a token that replaces: windlass hosts token HOST --replace")),
        }
    }

    /// The key of this epoch; made, durably, when there is none. A key of another epoch makes room: who is let in anew has a new
    /// one.
    ///
    /// # Errors
    /// As [`Place::identity`]; `Unavailable` when it can't be written.
    pub fn identity_of(&self, epoch: u64) -> Result<Identity, TrustError> {
        if let Some((identity, made_for)) = self.identity()?
            && made_for == epoch
        {
            return Ok(identity);
        }
        let mut seed = Zeroizing::new([0; KEY_BYTES]);
        getrandom::fill(seed.as_mut()).map_err(|e| {
            TrustError::new(
                Kind::Unavailable,
                format!("the system gives no random bytes for a key: {e}"),
            )
        })?;
        let identity = Identity::from_seed(&seed);
        let digits = Zeroizing::new(hex::encode(seed.as_ref()));
        let text = Zeroizing::new(format!("{KEY_BEGIN}{epoch} {}\n", *digits));
        self.write(KEY_FILE, text.as_bytes())?;
        Ok(identity)
    }

    /// As whom this place belongs to a fleet, when it does.
    ///
    /// # Errors
    /// `Denied` when it can't be read, `Invalid` when it isn't what was written.
    pub fn belonging(&self) -> Result<Option<Belonging>, TrustError> {
        let path = self.0.join(FLEET_FILE);
        let bytes = match std::fs::read(&path) {
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(None),
            read => read.map_err(|e| unread(&path, e))?,
        };
        serde_json::from_slice(&bytes).map(Some).map_err(|e| {
            let message = format!("{}: {e}; it was left unchanged", path.display());
            TrustError::new(Kind::Invalid, message).hint("take it away, and join again: windlass hosts join TOKEN")
        })
    }

    /// Writes down as whom this place belongs to a fleet; durable when it returns.
    ///
    /// # Errors
    /// `Unavailable` when it can't be written.
    pub fn belong(&self, belonging: &Belonging) -> Result<(), TrustError> {
        let text = serde_json::to_vec(belonging)
            .map_err(|e| TrustError::new(Kind::Invalid, format!("a membership can't be encoded: {e}")))?;
        self.write(FLEET_FILE, &text)
    }

    fn write(&self, name: &str, bytes: &[u8]) -> Result<(), TrustError> {
        let path = self.0.join(name);
        let written = || -> std::io::Result<()> {
            std::fs::create_dir_all(&self.0)?;
            // a name of its own for each process; one that was killed leaves nothing that anybody reads
            let beside = self.0.join(format!("{name}.{}.new", std::process::id()));
            let mut file = std::fs::OpenOptions::new()
                .write(true)
                .create(true)
                .truncate(true)
                .mode(0o600)
                .open(&beside)?;
            file.set_permissions(std::fs::Permissions::from_mode(0o600))?;
            file.write_all(bytes)?;
            file.sync_all()?;
            std::fs::rename(&beside, &path)?;
            std::fs::File::open(&self.0)?.sync_all()
        };
        written().map_err(|e| {
            let message = format!(
                "{} can't be written: {e}; what stood there stands there still",
                path.display()
            );
            TrustError::new(Kind::Unavailable, message).caused_by(e)
        })
    }
}

fn unread(path: &Path, e: std::io::Error) -> TrustError {
    TrustError::new(Kind::Denied, format!("{} can't be read: {e}", path.display())).caused_by(e)
}
