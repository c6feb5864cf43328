//! Large objects in parts.

use aws_sdk_s3::primitives::ByteStream;
use aws_sdk_s3::types::{CompletedMultipartUpload, CompletedPart};
use bytes::Bytes;
use futures::{StreamExt, TryStreamExt, stream};
use store::{Key, Kind, Result};

use crate::bucket::{Attempt, Bucket};
use crate::fault::Fault;

/// Parts of one object sent at once.
const PARTS_IN_FLIGHT_MAX: usize = 4;
/// Parts that an object may have, as S3 has it.
const PARTS_MAX: u64 = 10_000;

impl Bucket {
    /// The object appears whole with the last request, or not at all; after an error its parts are thrown away. What a kill
    /// leaves behind is an upload that was begun: it is listed as no object, and a rule of the bucket's life cycle
    /// (`AbortIncompleteMultipartUpload`) ends it.
    pub(crate) async fn put_in_parts(&self, key: &Key, body: Bytes) -> Result<()> {
        let shown = key.as_str();
        let part_bytes = self.settings.part_bytes.max((body.len() as u64).div_ceil(PARTS_MAX));
        let part_bytes = usize::try_from(part_bytes).unwrap_or(usize::MAX);
        let upload = self.call("put", shown, || self.begin(key)).await?;
        let parts = (0..body.len().div_ceil(part_bytes)).map(|n| {
            let part = body.slice(n * part_bytes..body.len().min((n + 1) * part_bytes));
            let (upload, number) = (upload.as_str(), n as i32 + 1);
            async move { self.call("put", shown, || self.part(key, upload, number, &part)).await }
        });
        let sent: Result<Vec<CompletedPart>> = stream::iter(parts).buffered(PARTS_IN_FLIGHT_MAX).try_collect().await;
        let done = match sent {
            Ok(parts) => self.call("put", shown, || self.complete(key, &upload, &parts)).await,
            Err(e) => Err(e),
        };
        if done.is_err() {
            let request = self.client.abort_multipart_upload().bucket(&self.bucket);
            let aborted = request.key(self.full(key)).upload_id(&upload).send().await;
            if let Err(e) = aborted.map_err(self.fault()) {
                tracing::warn!(object = shown, why = %e.why, "the parts of an upload that failed stay behind");
            }
        }
        done
    }

    async fn begin(&self, key: &Key) -> Attempt<String> {
        let request = self.client.create_multipart_upload().bucket(&self.bucket);
        let answer = request
            .key(self.full(key))
            .set_checksum_algorithm(self.checksum())
            .set_server_side_encryption(self.sse())
            .set_ssekms_key_id(self.settings.sse_kms_key_id.clone())
            .set_storage_class(self.storage_class())
            .send()
            .await
            .map_err(self.fault())?;
        answer
            .upload_id
            .ok_or_else(|| Fault::new(Kind::Other, "an upload without an id"))
    }

    async fn part(&self, key: &Key, upload: &str, number: i32, part: &Bytes) -> Attempt<CompletedPart> {
        let request = self.client.upload_part().bucket(&self.bucket).key(self.full(key));
        let answer = request
            .upload_id(upload)
            .part_number(number)
            .set_checksum_algorithm(self.checksum())
            .body(ByteStream::from(part.clone()))
            .send()
            .await
            .map_err(self.fault())?;
        Ok(CompletedPart::builder()
            .part_number(number)
            .set_e_tag(answer.e_tag)
            .set_checksum_crc32_c(answer.checksum_crc32_c)
            .build())
    }

    async fn complete(&self, key: &Key, upload: &str, parts: &[CompletedPart]) -> Attempt<()> {
        let all = CompletedMultipartUpload::builder()
            .set_parts(Some(parts.to_vec()))
            .build();
        let request = self.client.complete_multipart_upload().bucket(&self.bucket);
        let answer = request
            .key(self.full(key))
            .upload_id(upload)
            .multipart_upload(all)
            .send()
            .await
            .map_err(self.fault());
        match answer {
            // an earlier attempt went through, and only its answer was lost: the object is there or it isn't
            Err(fault) if fault.code == "NoSuchUpload" => {
                let request = self.client.head_object().bucket(&self.bucket).key(self.full(key));
                request.send().await.map(drop).map_err(|_| fault)
            }
            done => done.map(drop),
        }
    }
}
