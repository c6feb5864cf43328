//! The thread on which actix's system lives, and from which concerns get theirs.

use actix_rt::{Arbiter, System};

use crate::{Kind, RuntimeError};

/// actix's system on a thread of its own, so that the program's main runtime stays tokio's.
#[derive(Debug)]
pub(crate) struct ActorSystem {
    system: System,
}

impl ActorSystem {
    pub(crate) async fn start() -> Result<Self, RuntimeError> {
        let (tell, told) = tokio::sync::oneshot::channel();
        std::thread::Builder::new()
            .name("windlass-actors".into())
            .spawn(move || {
                let runner = System::new();
                if tell.send(System::current()).is_ok()
                    && let Err(e) = runner.run()
                {
                    tracing::error!(error = %e, "actix's system ended");
                }
            })
            .map_err(|e| no_thread().caused_by(e))?;
        let system = told.await.map_err(|e| no_thread().caused_by(e))?;
        Ok(Self { system })
    }

    /// A new thread for one concern.
    pub(crate) async fn arbiter(&self) -> Result<Arbiter, RuntimeError> {
        let (tell, told) = tokio::sync::oneshot::channel();
        // only a thread of the system can make one
        let asked = self.system.arbiter().spawn_fn(move || {
            let _asker_gone = tell.send(Arbiter::try_new());
        });
        if !asked {
            return Err(no_thread());
        }
        told.await
            .map_err(|e| no_thread().caused_by(e))?
            .map_err(|e| no_thread().caused_by(e))
    }
}

impl Drop for ActorSystem {
    fn drop(&mut self) {
        self.system.stop();
    }
}

fn no_thread() -> RuntimeError {
    RuntimeError::new(Kind::System, "the system gave no thread for an actor")
}
