//! Placements that their only rack's record keeps: one compare-and-set books and decides them.
//!
//! A placement's own key goes before what its rack says of it. Whoever wants to change a resident first writes that key, from
//! the resident's unchanged words; then the rack forgets it, with the next change of that placement at the latest. So it is
//! never in neither place, and what is in both is the same placement.

use serde::{Deserialize, Serialize};

use super::{PlacementRecord, RackRecord};
use crate::{Kind, RackError, Result};

/// Longest record of a placement that its rack keeps, in bytes.
pub const RESIDENT_BYTES_MAX: usize = 4 << 10;
/// What one rack keeps of placements, in bytes: each of its writes carries them all.
pub const RESIDENTS_BYTES_MAX: usize = 128 << 10;

/// One of them.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Resident {
    /// The placement.
    #[serde(rename = "p")]
    pub placement: String,
    /// Its record, as its own key would have it: read only when somebody asks for it.
    #[serde(rename = "r")]
    pub record: String,
}

impl Resident {
    /// Of a committed placement whose VMs are all in one rack.
    ///
    /// # Errors
    /// `Internal` when it can't be written down.
    pub fn new(record: &PlacementRecord) -> Result<Self> {
        let text = serde_json::to_string(record).map_err(|e| {
            RackError::new(
                Kind::Internal,
                format!("placement {} can't be written: {e}; nothing was placed", record.id),
            )
        })?;
        Ok(Self {
            placement: record.id.clone(),
            record: text,
        })
    }
    /// Its record.
    ///
    /// # Errors
    /// `Corrupt` when it isn't what was written.
    pub fn read(&self) -> Result<PlacementRecord> {
        serde_json::from_str(&self.record).map_err(|e| {
            RackError::new(
                Kind::Corrupt,
                format!("placement {} can't be read: {e}; nothing was changed", self.placement),
            )
        })
    }
}

impl RackRecord {
    /// A resident by its placement's id.
    pub fn resident(&self, placement: &str) -> Option<&Resident> {
        self.residents.iter().find(|r| r.placement == placement)
    }
    /// How much of the record residents are, in bytes.
    pub fn residents_bytes(&self) -> usize {
        self.residents.iter().map(|r| r.record.len()).sum()
    }
    /// Forgets a resident that has a key of its own. False when there is nothing to do.
    pub fn forget_resident(&mut self, placement: &str) -> bool {
        let before = self.residents.len();
        self.residents.retain(|r| r.placement != placement);
        self.residents.len() < before
    }
}
