//! `windlass serve`: the daemon.

use config::Loaded;
use tokio::sync::watch;
use wire::ErrorBody;
use wire::house::Hardening;

use crate::gateway::{server, socket};
use crate::house::{House, Role};
use crate::log::LogLevel;
use crate::reload::{Read, Reloader};
use crate::signals::{Hangups, StopSignals};

/// Runs until SIGINT or SIGTERM, then drains. SIGHUP has `read` read the configuration again.
///
/// # Errors
/// `conflict` when another process holds the state or answers at the socket; what a concern says that can't start.
pub async fn run(loaded: &Loaded, level: LogLevel, read: Read, hardening: Option<Hardening>) -> Result<(), ErrorBody> {
    let config = &loaded.config;
    let (mut signals, mut hangups) = (StopSignals::new()?, Hangups::new()?);
    for finding in &loaded.warnings {
        tracing::warn!(place = %finding.place, "{}", finding.message);
    }
    // the state's lock comes first: it decides which process is the daemon of this directory
    let house = tokio::select! {
        started = House::start(config, Role::Daemon) => started?,
        // the servers of a fleet may be waited for
        signal = signals.next() => {
            tracing::info!(signal, "ended before it served");
            return Ok(());
        }
    };
    if let Some(hardening) = hardening {
        house.say_hardening(hardening);
    }
    let (listener, bound) = match socket::bind(&config.gateway.socket).await {
        Ok(bound) => bound,
        Err(error) => {
            house.drain().await;
            return Err(error);
        }
    };
    let doors = match server::Doors::open(listener, &config.gateway).await {
        Ok(doors) => doors,
        Err(error) => {
            house.drain().await;
            return Err(error);
        }
    };
    tracing::info!(
        host = %config.host_id,
        state_dir = %config.state_dir.display(),
        socket = %config.gateway.socket.display(),
        version = env!("CARGO_PKG_VERSION"),
        "serving"
    );
    let (stop, stopping) = watch::channel(false);
    let mut gateway = tokio::spawn({
        let (house, config) = (house.clone(), config.clone());
        async move { server::serve(doors, house, &config, stopping).await }
    });
    let reloader = Reloader {
        loaded: loaded.clone(),
        read,
        level,
        house: house.clone(),
    };
    let (mut evicted, mut put_out) = (false, false);
    let ended = tokio::select! {
        signal = signals.next() => {
            tracing::info!(signal, timeout_s = house.config().runtime.drain_timeout_s, "draining; the same signal again ends at once");
            None
        }
        ended = &mut gateway => Some(ended),
        () = house.evicted() => {
            tracing::error!(host = %config.host_id, "another windlass has this host's id; draining");
            evicted = true;
            None
        }
        () = house.put_out() => {
            tracing::error!(host = %config.host_id, "this host was put out of its fleet; draining");
            put_out = true;
            None
        }
        never = reloader.follow(&mut hangups) => match never {},
    };
    // status and jobs are still answered while the house drains
    let left = tokio::select! {
        left = house.drain() => left,
        signal = signals.next() => {
            tracing::warn!(signal, "ended without draining; jobs in hand go on at the next start");
            return Ok(());
        }
    };
    let _gateway_gone = stop.send(true);
    drop(bound);
    if ended.is_none() && tokio::time::timeout(GATEWAY_STOP_TIMEOUT, gateway).await.is_err() {
        tracing::warn!("connections were left open");
    }
    if left > 0 {
        tracing::warn!(
            left,
            "not everything was finished in time; jobs go on at the next start"
        );
    }
    tracing::info!("ended");
    match ended {
        None if evicted => Err(ErrorBody::new(
            wire::Code::Conflict,
            format!(
                "another windlass took the host id '{}' while this one was cut off",
                config.host_id
            ),
        )
        .hint("give each host an id of its own: --host-id, or host_id in its configuration")),
        None if put_out => Err(ErrorBody::new(
            wire::Code::Denied,
            format!("host '{}' was put out of its fleet", config.host_id),
        )
        .hint(format!(
            "to let it in again: windlass hosts token {}, on a host that may admit; then here: windlass hosts join TOKEN",
            config.host_id
        ))),
        None => Ok(()),
        Some(Ok(result)) => result,
        Some(Err(e)) => Err(ErrorBody::new(wire::Code::Internal, format!("the gateway died: {e}"))),
    }
}

/// How long open connections may take to end once the house is drained.
const GATEWAY_STOP_TIMEOUT: std::time::Duration = std::time::Duration::from_secs(2);
