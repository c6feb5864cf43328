//! Which format a disk has: what was asked for, what its last snapshot says, and what its first bytes look like.
//!
//! A guest that has a raw disk can write a qcow2 header into it. Whoever then believes the header reads whatever file of
//! the host it names as backing image. So a header that names one is never believed on its own: someone must have said
//! `qcow2`, now or when the disk was recorded.

use crate::{Kind, Result, SnapshotError};

/// How a disk's bytes lie in its file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    /// Byte `n` is byte `n`; also a block device.
    Raw,
    /// QEMU's.
    Qcow2,
}

impl Format {
    /// Its name on the command line.
    pub fn name(self) -> &'static str {
        match self {
            Self::Raw => "raw",
            Self::Qcow2 => "qcow2",
        }
    }

    /// What a request says.
    ///
    /// # Errors
    /// `Invalid` for another word.
    pub fn parse(text: &str) -> Result<Self> {
        match text {
            "raw" => Ok(Self::Raw),
            "qcow2" => Ok(Self::Qcow2),
            other => {
                let shown: String = other.chars().take(40).collect();
                let why = format!("'{shown}' is no format of a disk: raw and qcow2 are");
                Err(SnapshotError::new(Kind::Invalid, why).hint("--format raw, or --format qcow2"))
            }
        }
    }

    /// What a snapshot recorded: `raw`, `block` or `qcow2`. `None` for what we don't know.
    pub fn recorded(text: &str) -> Option<Self> {
        match text {
            "raw" | "block" => Some(Self::Raw),
            "qcow2" => Some(Self::Qcow2),
            _ => None,
        }
    }
}

/// What a disk's first bytes look like.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Looks {
    /// Like nothing that we know.
    Plain,
    /// Like qcow2 that needs no other file.
    Qcow2Alone,
    /// Like qcow2 whose data is partly in another file.
    Qcow2OnOthers,
}

/// Decides. `recorded` is what the disk's last snapshot says.
///
/// # Errors
/// `Invalid` when the disk doesn't look like what was asked for, or nobody can tell.
pub fn decide(path: &str, asked: Option<Format>, recorded: Option<Format>, looks: Looks) -> Result<Format> {
    let invalid = |why: String, hint: &str| Err(SnapshotError::new(Kind::Invalid, why).hint(hint));
    let say = "say which it is: --format qcow2, or --format raw";
    match (asked, recorded, looks) {
        (Some(Format::Qcow2), _, Looks::Plain) => invalid(
            format!("disk {path} is no qcow2 image: its header is missing; nothing was changed"),
            "--format raw",
        ),
        (Some(asked), _, _) => Ok(asked),
        (None, Some(Format::Qcow2), Looks::Plain) => invalid(
            format!("disk {path} was qcow2 when it was recorded, and has no such header now; nothing was changed"),
            "check that this is the right disk; if it was converted: --format raw",
        ),
        (None, Some(Format::Raw), Looks::Qcow2Alone | Looks::Qcow2OnOthers) => invalid(
            format!(
                "disk {path} was raw when it was recorded, and begins with a qcow2 header now, which a guest can write too; nothing was changed"
            ),
            say,
        ),
        (None, Some(recorded), _) => Ok(recorded),
        (None, None, Looks::Qcow2OnOthers) => invalid(
            format!(
                "disk {path} begins with a qcow2 header that names a backing image; a guest can write such a header into a raw disk, so it is not believed; nothing was changed"
            ),
            say,
        ),
        (None, None, Looks::Qcow2Alone) => Ok(Format::Qcow2),
        (None, None, Looks::Plain) => Ok(Format::Raw),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_header_alone_is_believed_only_when_it_can_do_no_harm() {
        use Format::{Qcow2, Raw};
        use Looks::{Plain, Qcow2Alone, Qcow2OnOthers};
        let cases = [
            (None, None, Plain, Some(Raw)),
            (None, None, Qcow2Alone, Some(Qcow2)),
            (None, None, Qcow2OnOthers, None),
            (None, Some(Raw), Plain, Some(Raw)),
            (None, Some(Raw), Qcow2Alone, None),
            (None, Some(Raw), Qcow2OnOthers, None),
            (None, Some(Qcow2), Plain, None),
            (None, Some(Qcow2), Qcow2Alone, Some(Qcow2)),
            (None, Some(Qcow2), Qcow2OnOthers, Some(Qcow2)),
            (Some(Raw), Some(Qcow2), Qcow2OnOthers, Some(Raw)),
            (Some(Raw), None, Plain, Some(Raw)),
            (Some(Qcow2), Some(Raw), Qcow2OnOthers, Some(Qcow2)),
            (Some(Qcow2), None, Plain, None),
        ];
        for (asked, recorded, looks, expected) in cases {
            let found = decide("/d", asked, recorded, looks);
            assert_eq!(
                found.as_ref().ok().copied(),
                expected,
                "{asked:?} {recorded:?} {looks:?}"
            );
            if let Err(error) = found {
                assert_eq!(error.kind, Kind::Invalid);
                assert!(error.hint.unwrap().contains("--format"));
            }
        }
    }

    #[test]
    fn words() {
        assert_eq!(Format::parse("qcow2").unwrap(), Format::Qcow2);
        assert_eq!(Format::parse("vmdk").unwrap_err().kind, Kind::Invalid);
        assert_eq!(Format::recorded("block"), Some(Format::Raw));
        assert_eq!(Format::recorded("vhdx"), None);
    }
}
