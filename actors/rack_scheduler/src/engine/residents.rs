//! Placements by id, wherever their record is: under a key of their own, or with their only rack (`core::ledger::Resident`).

use futures::FutureExt;
use futures::future::BoxFuture;

use super::Scheduler;
use super::commit::{encoded, lost};
use super::view::{key, read};
use crate::core::ledger::{PlacementRecord, RackChange, Resident};
use crate::{Kind, RackError, Result};

/// Keys that are written at once when a rack's residents move out.
const MOVES_AT_ONCE: usize = 32;

impl Scheduler {
    /// A placement's key, and its revision.
    ///
    /// # Errors
    /// When the state can't be read.
    pub(super) async fn kept(&self, id: &str) -> Result<Option<(u64, PlacementRecord)>> {
        match self.state.get(&key("placements", id)?).await? {
            None => Ok(None),
            Some(entry) => Ok(Some((entry.revision, read(&entry)?))),
        }
    }

    /// A placement to look at.
    ///
    /// # Errors
    /// When the state can't be read.
    pub async fn known(&self, id: &str) -> Result<Option<PlacementRecord>> {
        if let Some((_, record)) = self.kept(id).await? {
            return Ok(Some(record));
        }
        match self.find_resident(id).await? {
            Some(resident) => Ok(Some(resident.read()?)),
            // it may have moved out between the two looks
            None => Ok(self.kept(id).await?.map(|(_, record)| record)),
        }
    }

    /// A placement to change, and the revision of its key: a resident gets a key first.
    ///
    /// # Errors
    /// When the state can't be read or written.
    pub async fn placement(&self, id: &str) -> Result<Option<(u64, PlacementRecord)>> {
        if let Some(found) = self.kept(id).await? {
            return Ok(Some(found));
        }
        if let Some(resident) = self.find_resident(id).await? {
            self.move_out(&resident).await?;
        }
        self.kept(id).await
    }

    /// A rack's own placement. What follows from a request id never is one, for its key decides.
    async fn find_resident(&self, id: &str) -> Result<Option<Resident>> {
        if Self::follows_from_request(id) {
            return Ok(None);
        }
        let rack_in_view = || {
            let view = self.view();
            let mut racks = view.racks().iter();
            racks.find_map(|(rack, (_, r))| r.resident(id).map(|_| rack.clone()))
        };
        self.refresh().await?;
        let mut rack = rack_in_view();
        if rack.is_none() {
            // the view may lag behind what another scheduler has just written
            self.catch_up().await?;
            rack = rack_in_view();
        }
        let Some(rack) = rack else { return Ok(None) };
        // an old view may tell of what moved out and was forgotten long ago
        match self.read_rack(&rack).await {
            Ok((_, record)) => Ok(record.resident(id).cloned()),
            Err(error) if error.kind == Kind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Writes a resident's own key; that it is there already is as good.
    async fn move_out(&self, resident: &Resident) -> Result<()> {
        let record = resident.read()?;
        match self
            .state
            .create(&key("placements", &record.id)?, encoded(&record)?)
            .await
        {
            Err(error) if !lost(&error) => Err(error.into()),
            _ => Ok(()),
        }
    }

    /// Residents of all racks, as the state has them now.
    pub(super) async fn residents(&self) -> Result<Vec<PlacementRecord>> {
        self.catch_up().await?;
        let residents: Vec<Resident> = {
            let view = self.view();
            view.racks().values().flat_map(|(_, r)| r.residents.clone()).collect()
        };
        residents.iter().map(Resident::read).collect()
    }

    /// Gives residents of racks that keep many a key each, so that the racks' writes stay small. Returns how many racks.
    ///
    /// # Errors
    /// When the state can't be read or written.
    pub(super) async fn spread_residents(&self) -> Result<u64> {
        let full: Vec<String> = {
            let view = self.view();
            let many = view
                .racks()
                .iter()
                .filter(|(_, (_, r))| r.residents_bytes() > self.settings.residents_bytes_max / 4);
            many.map(|(id, _)| id.clone()).collect()
        };
        let racks = full.len() as u64;
        for rack in full {
            let residents = self.read_rack(&rack).await?.1.residents;
            for some in residents.chunks(MOVES_AT_ONCE) {
                let moves: Vec<BoxFuture<'_, Result<()>>> = some.iter().map(|r| self.move_out(r).boxed()).collect();
                let moved = futures::future::join_all(moves).await;
                if let Some(error) = moved.into_iter().find_map(std::result::Result::err) {
                    return Err(error);
                }
            }
            let placements = residents.into_iter().map(|r| r.placement).collect();
            self.change_rack(&rack, RackChange::Forget(placements)).await?;
        }
        Ok(racks)
    }

    /// The error of a placement that isn't there.
    pub(super) fn absent(id: &str) -> RackError {
        let shown: String = id.chars().take(64).collect();
        RackError::new(
            Kind::NotFound,
            format!("there is no placement {shown}; nothing was changed"),
        )
        .hint("windlass rack ls")
    }
}
