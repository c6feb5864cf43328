//! SIGHUP: the configuration is read again. What can be taken up is, what needs a restart is named, and a configuration that is
//! wrong changes nothing.

use std::convert::Infallible;

use config::{Change, Loaded};
use wire::ErrorBody;

use crate::house::House;
use crate::log::LogLevel;
use crate::signals::Hangups;

/// Reads the configuration as it was read at the start: the same file, environment and flags.
pub type Read = Box<dyn Fn() -> Result<Loaded, ErrorBody> + Send + Sync>;

/// What a reload needs.
pub struct Reloader {
    /// What is in force.
    pub loaded: Loaded,
    /// Reads anew.
    pub read: Read,
    /// What is logged.
    pub level: LogLevel,
    /// Who lives by it.
    pub house: House,
}

impl Reloader {
    /// Reloads at each signal, as long as it is polled.
    pub async fn follow(mut self, hangups: &mut Hangups) -> Infallible {
        loop {
            hangups.next().await;
            if let Err(error) = self.reload().await {
                tracing::error!(
                    hint = error.hint.as_deref().unwrap_or("windlass check-config"),
                    "SIGHUP: the configuration was not reloaded, the earlier one stays in force: {error}"
                );
            }
        }
    }

    async fn reload(&mut self) -> Result<(), ErrorBody> {
        let fresh = (self.read)()?;
        let reloaded = self.loaded.reload(&fresh).map_err(|e| ErrorBody::from(&e))?;
        let config = reloaded.in_force.config.clone();
        // first, so that what follows is logged as was wished
        self.level.set(&config.log.level)?;
        for finding in &reloaded.in_force.warnings {
            tracing::warn!(place = %finding.place, "{}", finding.message);
        }
        if reloaded.changes.iter().any(|change| change.taken_up) {
            self.house.reload(config).await;
        }
        self.loaded = reloaded.in_force;
        tell(&reloaded.changes);
        Ok(())
    }
}

fn tell(changes: &[Change]) {
    for Change {
        key,
        from,
        to,
        origin,
        taken_up,
    } in changes
    {
        match taken_up {
            true => tracing::info!(key, %from, %to, %origin, "reloaded"),
            false => {
                tracing::warn!(key, in_force = %from, wanted = %to, %origin, "needs a restart; the earlier value stays in force")
            }
        }
    }
    let taken_up = changes.iter().filter(|change| change.taken_up).count();
    let need_restart = changes.len() - taken_up;
    tracing::info!(taken_up, need_restart, "SIGHUP: the configuration was read again");
}
