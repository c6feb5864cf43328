//! `windlass snapshot ...`: build a message, send it, print the answer.

use std::path::Path;
use std::process::ExitCode;

use serde::Serialize;
use serde::de::DeserializeOwned;
use wire::job::JobAccepted;
use wire::snapshot::{
    DiskArg, SnapshotCreate, SnapshotDiff, SnapshotExport, SnapshotForget, SnapshotInfo, SnapshotList, SnapshotListing,
    SnapshotShow, SnapshotVerify,
};
use wire::{Code, ErrorBody, Request};

use self::args::SnapshotVerb;
use super::Context;
use super::job::{self, Followed};
use crate::client::Client;

pub mod args;
pub mod repo;
pub mod restore;
mod show;

/// Runs one verb.
///
/// # Errors
/// As the concern answers.
pub async fn run(context: &Context, verb: &SnapshotVerb) -> Result<ExitCode, ErrorBody> {
    if let SnapshotVerb::Restore(args) = verb {
        return restore::run(context, args).await;
    }
    let client = context.connect().await?;
    let result = dispatch(context, &client, verb).await;
    client.close().await;
    result
}

/// All pages of a listing as one.
pub(super) async fn list(
    client: &Client,
    vm: Option<&str>,
    repo: Option<String>,
) -> Result<SnapshotListing, ErrorBody> {
    let mut request = SnapshotList {
        vm: vm.map(str::to_owned),
        repo,
        ..SnapshotList::default()
    };
    let mut all = client.call(&request).await?;
    while all.more {
        let Some(last) = all.snapshots.last() else { break };
        request.after = Some(last.id.clone());
        let page = client.call(&request).await?;
        all.more = page.more && !page.snapshots.is_empty();
        all.snapshots.extend(page.snapshots);
    }
    Ok(all)
}

async fn dispatch(context: &Context, client: &Client, verb: &SnapshotVerb) -> Result<ExitCode, ErrorBody> {
    let repo = context.repo(client);
    match verb {
        SnapshotVerb::Create {
            vm,
            disks,
            definition,
            formats,
            crash_consistent,
            job,
        } => {
            let request = SnapshotCreate {
                vm: vm.clone(),
                disks: with_formats(disks, formats, &context.working_dir)?,
                crash_consistent: *crash_consistent,
                definition: definition.as_ref().map(|p| absolute(p, &context.working_dir)),
                repo,
            };
            finish::<_, SnapshotInfo>(context, client, &request, job.request_id.clone(), show::snapshot).await
        }
        SnapshotVerb::Ls { vm } => context.answer(&list(client, vm.as_deref(), repo).await?, show::snapshots),
        SnapshotVerb::Show { id, vm } => {
            let reply = client
                .call(&SnapshotShow {
                    id: id.clone(),
                    vm: vm.clone(),
                    repo,
                })
                .await?;
            context.answer(&reply, show::snapshot)
        }
        SnapshotVerb::Diff { a, b, disk } => {
            let reply = client
                .call(&SnapshotDiff {
                    a: a.clone(),
                    b: b.clone(),
                    disk: disk.clone(),
                    repo,
                })
                .await?;
            context.answer(&reply, show::diff)
        }
        SnapshotVerb::Verify { id, quick, job } => {
            let request = SnapshotVerify {
                id: id.clone(),
                quick: *quick,
                repo,
            };
            finish(context, client, &request, job.request_id.clone(), show::verified).await
        }
        SnapshotVerb::Forget { id, force } => {
            let reply = client
                .call(&SnapshotForget {
                    id: id.clone(),
                    force: *force,
                    repo,
                })
                .await?;
            context.answer(&reply, show::forgotten)
        }
        SnapshotVerb::Export {
            id,
            output,
            vm,
            disk,
            format,
            job,
        } => {
            let request = SnapshotExport {
                id: id.clone(),
                vm: vm.clone(),
                disk: disk.clone(),
                format: format.clone(),
                output: absolute(output, &context.working_dir),
                repo,
            };
            finish(context, client, &request, job.request_id.clone(), show::exported).await
        }
        SnapshotVerb::Restore(_) => unreachable!("handled before a client is made"),
    }
}

/// Submits, follows, prints.
pub async fn finish<R, T>(
    context: &Context,
    client: &Client,
    request: &R,
    request_id: Option<String>,
    human: impl FnOnce(&T) -> String,
) -> Result<ExitCode, ErrorBody>
where
    R: Request<Reply = JobAccepted>,
    T: Serialize + DeserializeOwned,
{
    match job::run::<R, T>(client, context.output, request, request_id).await? {
        Followed::Done(reply) => context.answer(&reply, human),
        Followed::Left(why) => Ok(context.left(why.as_ref())),
    }
}

/// A disk as the command line names it: `FILE` or `NAME=FILE`. A file that has a `=` in its path is written `./a=b` or with
/// its name before it: only what stands before the first `=`, and has no `/`, is a name.
pub fn disk(text: &str, working_dir: &Path) -> DiskArg {
    match text.split_once('=') {
        Some((name, path)) if !name.is_empty() && !name.contains('/') && !path.is_empty() => DiskArg {
            name: Some(name.to_owned()),
            path: absolute(Path::new(path), working_dir),
            format: None,
        },
        _ => DiskArg {
            name: None,
            path: absolute(Path::new(text), working_dir),
            format: None,
        },
    }
}

/// Disks with what `--format` says of them: `FORMAT` of all, `NAME=FORMAT` of the one with that name.
///
/// # Errors
/// `invalid` for the name of none of them.
pub fn with_formats(disks: &[String], formats: &[String], working_dir: &Path) -> Result<Vec<DiskArg>, ErrorBody> {
    let mut args: Vec<DiskArg> = disks.iter().map(|d| disk(d, working_dir)).collect();
    for text in formats {
        let (name, format) = match text.split_once('=') {
            Some((name, format)) => (Some(name), format),
            None => (None, text.as_str()),
        };
        let mut any = false;
        for arg in args
            .iter_mut()
            .filter(|arg| name.is_none() || arg.name.as_deref() == name)
        {
            arg.format = Some(format.to_owned());
            any = true;
        }
        if !any {
            return Err(ErrorBody::new(
                Code::Invalid,
                format!("--format {text} speaks of no disk that is given here; nothing was changed"),
            )
            .hint("name the disk: --disk NAME=PATH"));
        }
    }
    Ok(args)
}

/// The path as the daemon, whose working directory is another, finds it. Links are left to the concern.
pub fn absolute(path: &Path, working_dir: &Path) -> String {
    let joined = working_dir.join(path);
    let mut clean = std::path::PathBuf::new();
    for part in joined.components() {
        if part != std::path::Component::CurDir {
            clean.push(part);
        }
    }
    clean.to_string_lossy().into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn formats_are_of_all_disks_or_of_one() {
        let dir = Path::new("/d");
        let formats = |disks: &[&str], formats: &[&str]| {
            let owned = |list: &[&str]| list.iter().map(|s| (*s).to_owned()).collect::<Vec<_>>();
            let args = with_formats(&owned(disks), &owned(formats), dir);
            args.map(|all| {
                all.into_iter()
                    .map(|a| a.format.unwrap_or_default())
                    .collect::<Vec<_>>()
            })
        };
        assert_eq!(formats(&["a", "b"], &[]).unwrap(), ["", ""]);
        assert_eq!(formats(&["a", "b"], &["qcow2"]).unwrap(), ["qcow2", "qcow2"]);
        assert_eq!(formats(&["x=a", "y=b"], &["y=qcow2"]).unwrap(), ["", "qcow2"]);
        assert_eq!(formats(&["x=a", "y=b"], &["raw", "y=qcow2"]).unwrap(), ["raw", "qcow2"]);
        assert!(formats(&["a"], &["z=raw"]).is_err());
        assert!(formats(&[], &["raw"]).is_err());
    }

    #[test]
    fn disks_are_files_or_names_with_files() {
        let dir = Path::new("/home/ada");
        let case = |text: &str| {
            let arg = disk(text, dir);
            (arg.name, arg.path)
        };
        assert_eq!(case("web1.raw"), (None, "/home/ada/web1.raw".into()));
        assert_eq!(case("./web1.raw"), (None, "/home/ada/web1.raw".into()));
        assert_eq!(case("/srv/web1.raw"), (None, "/srv/web1.raw".into()));
        assert_eq!(
            case("data=web1.raw"),
            (Some("data".into()), "/home/ada/web1.raw".into())
        );
        assert_eq!(case("data=/srv/a=b"), (Some("data".into()), "/srv/a=b".into()));
        assert_eq!(case("./a=b"), (None, "/home/ada/a=b".into()));
        assert_eq!(case("/srv/a=b"), (None, "/srv/a=b".into()));
        assert_eq!(case("=b"), (None, "/home/ada/=b".into()));
        // what `..` leads to depends on links, so it stays
        assert_eq!(case("../x"), (None, "/home/ada/../x".into()));
    }
}
