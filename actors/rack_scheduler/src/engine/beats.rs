//! Inventory from heartbeats: asked of the concern `hosts`, which hears them.

use wire::Headers;
use wire::hosts::HostList;

use super::Scheduler;
use super::commit::encoded;
use super::view::key;
use crate::core::beats;
use crate::core::ledger::{RACK_VERSION, RackChange, RackRecord};
use crate::{Kind, RackError, Result};

/// How long the concern `hosts` may take to answer, in milliseconds.
const TIMEOUT_MS: u64 = 5_000;

impl Scheduler {
    /// Takes in what the heartbeats say; returns how many racks changed.
    ///
    /// # Errors
    /// When nobody tells of hosts, or the state can't be written.
    pub async fn take_beats(&self) -> Result<u64> {
        let headers = Headers {
            timeout_ms: Some(TIMEOUT_MS),
            ..Headers::default()
        };
        let listing = bus::call(&*self.announcer.bus, &self.host, &HostList::default(), headers).await;
        let listing = listing.map_err(|e| {
            RackError::new(
                Kind::Unavailable,
                format!("heartbeats can't be read: {}; the inventory stays as it was", e.message),
            )
        })?;
        let (racks, left_out) = beats::racks(
            &listing.hosts,
            self.settings.vcpus_sold_percent,
            self.settings.memory_sold_percent,
        );
        left_out.iter().for_each(|why| tracing::warn!("{why}"));
        self.refresh().await?;
        let mut changed = 0;
        for (id, mut beats) in racks {
            beats.hosts.retain(|host| {
                let elsewhere = self.view().rack_of(&host.id).filter(|rack| *rack != id);
                if let Some(rack) = &elsewhere {
                    tracing::warn!(
                        host = host.id,
                        rack,
                        says = id,
                        "a host that moved stays where it is booked"
                    );
                }
                elsewhere.is_none()
            });
            changed += u64::from(self.take_rack(&id, &beats).await?);
        }
        Ok(changed)
    }

    async fn take_rack(&self, id: &str, beats: &RackRecord) -> Result<bool> {
        if self.view().rack(id).is_none() && !beats.hosts.is_empty() {
            let record = RackRecord {
                version: RACK_VERSION,
                ..beats.clone()
            };
            match self.state.create(&key("racks", id)?, encoded(&record)?).await {
                Ok(revision) => {
                    self.view().apply(id, revision, record);
                    return Ok(true);
                }
                Err(error) if error.kind == state::Kind::Conflict => {}
                Err(error) => return Err(error.into()),
            }
        }
        if beats.hosts.is_empty() {
            return Ok(false);
        }
        let same = self
            .view()
            .rack(id)
            .is_some_and(|(_, record)| !beats::merge(&mut record.clone(), beats));
        if same {
            return Ok(false);
        }
        Ok(self.change_rack(id, RackChange::Beats(beats.clone())).await?.changed)
    }
}
