//! `windlass repo ...`

use std::process::ExitCode;

use serde_json::json;
use wire::ErrorBody;
use wire::repo::{RepoInit, RepoRebuildIndex, RepoShow, RepoStats};

use super::args::RepoVerb;
use super::show;
use crate::cli::{Context, table};

/// Runs one verb.
///
/// # Errors
/// As the concern answers.
pub async fn run(context: &Context, verb: &RepoVerb) -> Result<ExitCode, ErrorBody> {
    if let RepoVerb::Ls = verb {
        // what is configured, whether it exists or not
        let list = json!({"repos": [{"url": context.loaded.config.repo.url, "default": true}]});
        return context.answer(&list, |_| {
            let mut rows = table::Table::new().text("URL").text("USE");
            rows.row([context.loaded.config.repo.url.as_str(), "default"]);
            rows.render()
        });
    }
    let client = context.connect().await?;
    let repo = context.repo(&client);
    if let RepoVerb::RebuildIndex = verb {
        let done = super::finish(context, &client, &RepoRebuildIndex { repo }, None, show::rebuilt).await;
        client.close().await;
        return done;
    }
    let result = match verb {
        RepoVerb::Init => client.call(&RepoInit { repo, chunker: None }).await.map(Reply::Info),
        RepoVerb::Show => client.call(&RepoShow { repo }).await.map(Reply::Info),
        RepoVerb::Stats => client.call(&RepoStats { repo }).await.map(Reply::Counts),
        RepoVerb::Ls | RepoVerb::RebuildIndex => unreachable!("answered above"),
    };
    client.close().await;
    match result? {
        Reply::Info(info) => context.answer(&info, show::repo),
        Reply::Counts(counts) => context.answer(&counts, show::counts),
    }
}

enum Reply {
    Info(wire::repo::RepoInfo),
    Counts(wire::repo::RepoCounts),
}
