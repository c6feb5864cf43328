//! What this server honours beyond the port, tried with an object that may go.

use aws_sdk_s3::primitives::ByteStream;
use aws_sdk_s3::types::ChecksumMode;
use store::{Key, Result, Tried};

use crate::bucket::{Attempt, Bucket};
use crate::settings::Checksums;

const BODY: &[u8] = b"windlass tries out this server";
/// A CRC-32C that no body of ours has.
const WRONG_CRC32C: &str = "AAAAAA==";

impl Bucket {
    pub(crate) async fn try_all(&self, scratch: &Key) -> Result<Tried> {
        let shown = scratch.as_str();
        self.call("try_out", shown, || self.plain(scratch)).await?;
        let conditional_put = self.call("try_out", shown, || self.refused_when_there(scratch)).await?;
        if self.settings.checksums == Checksums::Off {
            return Ok(Tried {
                conditional_put: Some(conditional_put),
                ..Tried::default()
            });
        }
        let checked = self.call("try_out", shown, || self.refused_when_wrong(scratch)).await?;
        self.call("try_out", shown, || self.plain(scratch)).await?;
        let told = self.call("try_out", shown, || self.tells_checksum(scratch)).await?;
        Ok(Tried {
            conditional_put: Some(conditional_put),
            checksums_checked: Some(checked),
            checksums_told: Some(told),
        })
    }

    async fn plain(&self, scratch: &Key) -> Attempt<()> {
        let request = self.client.put_object().bucket(&self.bucket).key(self.full(scratch));
        let request = request.set_checksum_algorithm(self.checksum());
        let answer = request.body(ByteStream::from_static(BODY)).send().await;
        answer.map(drop).map_err(self.fault())
    }

    async fn refused_when_there(&self, scratch: &Key) -> Attempt<bool> {
        let request = self.client.put_object().bucket(&self.bucket).key(self.full(scratch));
        let answer = request
            .if_none_match("*")
            .body(ByteStream::from_static(b"overwritten"))
            .send()
            .await;
        match answer.map_err(self.fault()) {
            Ok(_) => Ok(false),
            // refused as it should be, or not known: what counts is whether the object is as it was
            Err(fault) if fault.is_refusal() => Ok(fault.code == "PreconditionFailed" || fault.why.starts_with("412")),
            Err(fault) => Err(fault),
        }
    }

    async fn refused_when_wrong(&self, scratch: &Key) -> Attempt<bool> {
        // else the SDK adds a right one of another kind, and that is what the server looks at
        let request = self
            .bare_client
            .put_object()
            .bucket(&self.bucket)
            .key(self.full(scratch));
        let answer = request
            .checksum_crc32_c(WRONG_CRC32C)
            .body(ByteStream::from_static(BODY))
            .send()
            .await;
        match answer.map_err(self.fault()) {
            Ok(_) => Ok(false),
            Err(fault) if fault.is_refusal() => Ok(true),
            Err(fault) => Err(fault),
        }
    }

    async fn tells_checksum(&self, scratch: &Key) -> Attempt<bool> {
        let request = self.client.get_object().bucket(&self.bucket).key(self.full(scratch));
        let answer = request.checksum_mode(ChecksumMode::Enabled).send().await;
        let answer = answer.map_err(self.fault())?;
        Ok(answer.checksum_crc32_c().is_some())
    }
}
