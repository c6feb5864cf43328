//! Reading providers into the state. What one has is spread over parts by machine: a machine is always in the same part, so that a
//! reading which is cut off in the middle leaves some parts older and none wrong.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt;
use wire::metal_broker::{MACHINES_MAX, Machine};

use super::records::{encoded, key, lost};
use super::{Broker, Counts};
use crate::core::ledger::{StockHead, StockPart, VERSION};
use crate::core::machine::sound;
use crate::port::Provider;
use crate::{Kind, MetalError, Result};

/// Parts of one provider.
const PARTS: usize = 64;
/// Providers that are read at once.
const READ_AT_ONCE: usize = 8;
/// Troubles that are kept.
const TROUBLES_MAX: usize = 100;

fn part_of(provider: &str, machine: &str) -> String {
    let hash = blake3::hash(machine.as_bytes());
    format!("{provider}/{:02}", usize::from(hash.as_bytes()[0]) % PARTS)
}

impl Broker {
    /// Reads providers: those whose last reading is old enough, or all of one tenant.
    pub async fn read_providers(&self, of: Option<&str>) {
        let due = |p: &&Arc<dyn Provider>| match of {
            Some(tenant) => p.tenant() == tenant,
            None => self.is_due(&***p),
        };
        let due: Vec<Arc<dyn Provider>> = self.providers.iter().filter(due).cloned().collect();
        futures::stream::iter(due)
            .for_each_concurrent(READ_AT_ONCE, |provider| async move {
                if let Err(error) = self.read_provider(&provider).await {
                    tracing::warn!(%error, provider = provider.name(), "a provider can't be read; what was known of it stays");
                }
            })
            .await;
    }

    fn is_due(&self, provider: &dyn Provider) -> bool {
        let now_ms = self.clock.now_ms();
        let mut desk = self.desk();
        let tenant = desk.tenant_or_new(provider.tenant());
        let head = tenant.heads.get(provider.name());
        // a clock that was set back doesn't keep a provider unread
        head.is_none_or(|(_, head)| now_ms.abs_diff(head.read_ms) >= self.settings.refresh_every_ms)
    }

    /// Reads one provider. A lease saves other brokers the work; nothing rests on it.
    ///
    /// # Errors
    /// When the state can't be written. What a provider says is told with the inventory.
    pub async fn read_provider(&self, provider: &Arc<dyn Provider>) -> Result<()> {
        let (tenant, name) = (provider.tenant(), provider.name());
        let lease = key("reading", tenant, name)?;
        let ttl_ms = self.settings.stock_timeout_ms.min(state::LEASE_TTL_MS_MAX);
        match self.state.lease(&lease, self.host.as_str(), ttl_ms).await {
            Ok(_) => {}
            Err(error) if error.kind == state::Kind::Conflict => return Ok(()),
            Err(error) => return Err(error.into()),
        }
        let patience = Duration::from_millis(self.settings.stock_timeout_ms);
        let read = tokio::time::timeout(patience, provider.stock()).await;
        let read = read.unwrap_or_else(|_| {
            let message = format!("it didn't tell all that it has in {} s", patience.as_secs());
            Err(MetalError::new(Kind::Unavailable, message))
        });
        let written = match read {
            Ok(stock) if stock.machines.len() > MACHINES_MAX => {
                let told = format!(
                    "it has {} machines, more than {MACHINES_MAX}; what was known of it stays",
                    stock.machines.len()
                );
                self.write_head(provider, vec![told], None).await
            }
            Ok(stock) => {
                let (machines, mut troubles) = sound(stock.machines);
                troubles.extend(stock.troubles);
                match self.write_parts(provider, machines, &stock.unread).await {
                    Ok(()) => self.write_head(provider, troubles, Some(self.clock.now_ms())).await,
                    Err(error) => Err(error),
                }
            }
            Err(error) => {
                Counts::up(&self.counts.unread);
                let told = format!("{}; what was known of it stays", error.message);
                self.write_head(provider, vec![told], None).await
            }
        };
        let given_back = self.state.release(&lease, self.host.as_str()).await;
        if let Err(error) = given_back {
            tracing::debug!(%error, "a lease ends by itself");
        }
        written
    }

    async fn write_parts(&self, provider: &Arc<dyn Provider>, machines: Vec<Machine>, unread: &[String]) -> Result<()> {
        let (tenant, name) = (provider.tenant(), provider.name());
        let mut fresh: BTreeMap<String, Vec<Machine>> = BTreeMap::new();
        for mut machine in machines {
            machine.provider = name.to_owned();
            fresh.entry(part_of(name, &machine.id)).or_default().push(machine);
        }
        let prefix = format!("{name}/");
        let old: HashMap<String, Vec<Arc<Machine>>> = {
            let mut desk = self.desk();
            let parts = desk.tenant_or_new(tenant).stock.iter();
            let mine = parts.filter(|(part, _)| part.starts_with(&prefix));
            mine.map(|(part, (_, machines))| (part.clone(), machines.clone()))
                .collect()
        };
        for id in unread {
            let part = part_of(name, id);
            let known = old.get(&part).and_then(|p| p.iter().find(|m| m.id == *id));
            if let Some(known) = known {
                let part = fresh.entry(part).or_default();
                if part.iter().all(|m| m.id != *id) {
                    part.push((**known).clone());
                    part.sort_unstable_by(|a, b| a.id.cmp(&b.id));
                }
            }
        }
        for (part, machines) in fresh.iter() {
            let same = |old: &Vec<Arc<Machine>>| old.iter().map(|m| &**m).eq(machines.iter());
            if old.get(part).is_some_and(same) {
                continue;
            }
            let record = StockPart {
                version: VERSION,
                machines: machines.clone(),
            };
            let revision = self.state.put(&key("stock", tenant, part)?, encoded(&record)?).await?;
            let mut desk = self.desk();
            let known = desk.tenant_or_new(tenant);
            known.stock.insert(
                part.clone(),
                (revision, machines.iter().cloned().map(Arc::new).collect()),
            );
            known.is_stale = true;
        }
        for part in old.keys().filter(|part| !fresh.contains_key(*part)) {
            match self.state.delete(&key("stock", tenant, part)?, None).await {
                Err(error) if !lost(&error) => return Err(error.into()),
                _ => {}
            }
            let mut desk = self.desk();
            let known = desk.tenant_or_new(tenant);
            known.stock.remove(part);
            known.is_stale = true;
        }
        Ok(())
    }

    async fn write_head(
        &self,
        provider: &Arc<dyn Provider>,
        mut troubles: Vec<String>,
        read_ms: Option<u64>,
    ) -> Result<()> {
        let (tenant, name) = (provider.tenant(), provider.name());
        if troubles.len() > TROUBLES_MAX {
            let more = troubles.len() - TROUBLES_MAX;
            troubles.truncate(TROUBLES_MAX);
            troubles.push(format!("and {more} more"));
        }
        for trouble in &mut troubles {
            *trouble = trouble.chars().take(512).collect();
        }
        let earlier = {
            let mut desk = self.desk();
            let known = desk.tenant_or_new(tenant);
            if read_ms.is_some() {
                // what was shunned has been looked at again
                let shunned: Vec<String> = known.shunned.drain().map(|(machine, _)| machine).collect();
                shunned.iter().for_each(|machine| known.changed(machine));
            }
            known.heads.get(name).map(|(_, head)| head.read_ms)
        };
        let head = StockHead {
            version: VERSION,
            kind: provider.kind().to_owned(),
            read_ms: read_ms.or(earlier).unwrap_or(0),
            parts: PARTS,
            troubles,
        };
        let revision = self.state.put(&key("heads", tenant, name)?, encoded(&head)?).await?;
        let mut desk = self.desk();
        desk.tenant_or_new(tenant)
            .heads
            .insert(name.to_owned(), (revision, head));
        Ok(())
    }
}
