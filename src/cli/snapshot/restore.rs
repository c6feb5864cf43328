//! `windlass restore`: in place, planned, undone, or into a new file. It asks before it overwrites.

use std::io::{BufRead, IsTerminal};
use std::path::Path;
use std::process::ExitCode;

use wire::snapshot::{
    DiskArg, SnapshotExport, SnapshotInfo, SnapshotPlan, SnapshotRestore, SnapshotShow, SnapshotUndo,
};
use wire::{Code, ErrorBody};

use super::args::RestoreArgs;
use super::{absolute, finish, show, with_formats};
use crate::cli::{Context, table, units};
use crate::client::Client;

/// Runs it.
///
/// # Errors
/// As the concern answers; `invalid` without `--yes` where nobody can be asked.
pub async fn run(context: &Context, args: &RestoreArgs) -> Result<ExitCode, ErrorBody> {
    let overwrites = !args.plan && args.output.is_none();
    // before anything is opened: a script that forgot --yes hears so at once
    if overwrites && !context.yes && !std::io::stdin().is_terminal() {
        return Err(ErrorBody::new(
            Code::Invalid,
            format!(
                "restore of VM '{}' overwrites its disks and nobody can be asked here; nothing was changed",
                args.vm
            ),
        )
        .hint("the same command with --yes, or with --plan to see what it would do"));
    }
    let client = context.connect().await?;
    let result = dispatch(context, &client, args).await;
    client.close().await;
    result
}

async fn dispatch(context: &Context, client: &Client, args: &RestoreArgs) -> Result<ExitCode, ErrorBody> {
    let (repo, id) = (context.repo(client), args.job.request_id.clone());
    if let Some(output) = &args.output {
        let request = SnapshotExport {
            id: args.to.clone().unwrap_or_default(),
            vm: Some(args.vm.clone()),
            disk: named_disk(&args.disks)?,
            format: args.formats.first().cloned().unwrap_or_else(|| "raw".into()),
            output: absolute(output, &context.working_dir),
            repo,
        };
        return finish(context, client, &request, id, show::exported).await;
    }
    let disks = with_formats(&args.disks, &args.formats, &context.working_dir)?;
    if args.undo {
        if !context.yes {
            let what = format!(
                "VM {} returns to what it was before its last restore.\n{}",
                args.vm,
                disk_lines(&disks)
            );
            confirm(context, &what)?;
        }
        let request = SnapshotUndo {
            vm: args.vm.clone(),
            disks,
            repo,
        };
        return finish(context, client, &request, id, show::restored).await;
    }
    let mut restore = SnapshotRestore {
        vm: args.vm.clone(),
        to: args.to.clone().unwrap_or_default(),
        disks,
        repo,
    };
    if args.plan {
        return finish(context, client, &SnapshotPlan { restore }, id, show::plan).await;
    }
    if !context.yes {
        let shown = SnapshotShow {
            id: restore.to.clone(),
            vm: Some(args.vm.clone()),
            repo: restore.repo.clone(),
        };
        let target = client.call(&shown).await?;
        confirm(context, &what_happens(&restore, &target))?;
        // `latest` means what was shown, even if another snapshot is taken meanwhile
        restore.to = target.id;
    }
    finish(context, client, &restore, id, show::restored).await
}

fn what_happens(restore: &SnapshotRestore, target: &SnapshotInfo) -> String {
    let disks: Vec<DiskArg> = if restore.disks.is_empty() {
        target
            .disks
            .iter()
            .map(|d| DiskArg {
                name: Some(d.name.clone()),
                path: d.path.clone(),
                format: None,
            })
            .collect()
    } else {
        restore.disks.clone()
    };
    format!(
        "VM {} goes back to snapshot {} of {}.\n{}The present state is kept as a snapshot first; `windlass restore --vm {} --undo` leads back.\n",
        restore.vm,
        target.id,
        units::time(&target.created_at),
        disk_lines(&disks),
        restore.vm,
    )
}

fn disk_lines(disks: &[DiskArg]) -> String {
    disks.iter().fold(String::new(), |text, d| {
        text + "  overwrites " + &table::one_line(&d.path) + "\n"
    })
}

/// Asks on the terminal. Whether there is one was checked before.
fn confirm(context: &Context, what: &str) -> Result<(), ErrorBody> {
    context
        .output
        .stderr(&format!("{what}The VM must be off. Go on? [y/N] "));
    let mut line = String::new();
    let read = std::io::stdin().lock().read_line(&mut line);
    let yes = read.is_ok() && matches!(line.trim().to_ascii_lowercase().as_str(), "y" | "yes");
    if yes {
        Ok(())
    } else {
        Err(ErrorBody::new(Code::Conflict, "not confirmed; nothing was changed"))
    }
}

/// With `--output`, `--disk` says which disk of the snapshot: a name, `NAME=...`, or the file that it once was.
fn named_disk(disks: &[String]) -> Result<Option<String>, ErrorBody> {
    match disks {
        [] => Ok(None),
        [one] => {
            let name = match one.split_once('=') {
                Some((name, _)) if !name.is_empty() && !name.contains('/') => name.to_owned(),
                _ => Path::new(one)
                    .file_stem()
                    .map_or_else(|| one.clone(), |stem| stem.to_string_lossy().into_owned()),
            };
            Ok(Some(name))
        }
        _ => Err(
            ErrorBody::new(Code::Invalid, "--output writes one disk; --disk names more")
                .hint("one command for each disk"),
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn with_output_the_disk_is_a_name() {
        let name = |disks: &[&str]| named_disk(&disks.iter().map(|d| (*d).to_owned()).collect::<Vec<_>>());
        assert_eq!(name(&[]), Ok(None));
        assert_eq!(name(&["web1"]), Ok(Some("web1".into())));
        assert_eq!(name(&["/srv/web1.raw"]), Ok(Some("web1".into())));
        assert_eq!(name(&["data=/srv/web1.raw"]), Ok(Some("data".into())));
        assert_eq!(name(&["a", "b"]).unwrap_err().code, Code::Invalid);
    }

    #[test]
    fn the_question_names_vm_snapshot_and_disks() {
        let restore = SnapshotRestore {
            vm: "web1".into(),
            to: "latest".into(),
            disks: vec![],
            repo: None,
        };
        let text = what_happens(&restore, &SnapshotInfo::sample());
        for part in ["web1", &SnapshotInfo::sample().id, "/srv/web1.raw", "--undo"] {
            assert!(text.contains(part), "{text}");
        }
    }
}
