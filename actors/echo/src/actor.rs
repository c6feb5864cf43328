//! The concern's mailbox.

use runtime::{Announcer, Call, Concern, Effect, Kinds, OnCrash, Routes};
use serde_json::{Value, json};
use wire::echo::{EchoRepeat, EchoSaid, EchoSay};

use crate::core::said;

/// The concern.
pub struct Echo {
    announcer: Announcer,
    times: u64,
    asked: u64,
}

impl Concern for Echo {
    const NAME: &'static str = "echo";
    fn routes() -> Routes<Self> {
        Routes::new().on(Self::say).job::<EchoRepeat>()
    }
    fn observed(&self) -> Value {
        json!({"asked_total": self.asked})
    }
    fn jobs(&self) -> Kinds {
        let times = self.times;
        Kinds::new().on(OnCrash::Resume, move |_, request: EchoRepeat| async move {
            said(&request.text, times as usize)
        })
    }
}

impl Echo {
    /// As its row in THE TABLE builds it.
    pub fn new(announcer: &Announcer, settings: &config::Echo) -> Self {
        Self {
            announcer: announcer.clone(),
            times: settings.times,
            asked: 0,
        }
    }
    fn say(&mut self, request: EchoSay, _: &Call) -> Effect<Self, EchoSaid> {
        self.asked += 1;
        let announcer = self.announcer.clone();
        Effect::run(async move {
            let said = said(&request.text, 1)?;
            announcer.announce(said.clone()).await;
            Ok(said)
        })
    }
}
