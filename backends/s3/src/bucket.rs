//! A bucket, or the part of it below a prefix, as a [`Store`].

use std::fmt;
use std::future::Future;
use std::ops::{Deref, Range};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use async_trait::async_trait;
use aws_sdk_s3::Client;
use aws_sdk_s3::error::{ProvideErrorMetadata, SdkError};
use aws_sdk_s3::primitives::ByteStream;
use aws_sdk_s3::types::{
    ChecksumAlgorithm, ChecksumMode, Delete, ObjectIdentifier, ServerSideEncryption, StorageClass,
};
use aws_smithy_async::time::SharedTimeSource;
use aws_smithy_runtime_api::client::orchestrator::HttpResponse;
use bytes::{Bytes, BytesMut};
use futures::stream::BoxStream;
use store::{Key, Kind, Lent, Meta, Result, Spare, Store, StoreError, Tried};
use tokio::time::Instant;

use crate::address::Address;
use crate::client;
use crate::fault::Fault;
use crate::patience::{Patience, Stop};
use crate::settings::{Checksums, Settings};

/// Keys in one DELETE.
const DELETE_BATCH: usize = 1000;
/// Longest that one request may take although its bytes move: a server that hands out a byte now and then isn't one.
const REQUEST_MAX: Duration = Duration::from_secs(900);
/// No object is larger (the S3 User Guide says 5 TiB, lately 50): a range beyond needs no request.
const OBJECT_BYTES_MAX: u64 = 50 << 40;
/// Memory that is reserved for a body before its bytes are there.
const RESERVE_BYTES_MAX: u64 = 64 << 20;
/// Ranges from this length on are read into memory that was used before.
const LENT_BYTES_MIN: usize = 256 << 10;
/// So many bytes of it wait for the next range while others are in use, in pieces of a range.
const SPARE_BYTES_MAX: u64 = 64 << 20;
const SPARE_PIECE_BYTES: usize = 4 << 20;

/// What an attempt gives.
pub(crate) type Attempt<T> = std::result::Result<T, Fault>;

/// Cheap to clone.
#[derive(Clone)]
pub(crate) struct Bucket(Arc<Inner>);

impl fmt::Debug for Bucket {
    /// Not the client: the SDK shows the id of the key.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Bucket")
            .field("url", &self.url)
            .field("server", &self.server)
            .finish_non_exhaustive()
    }
}

pub(crate) struct Inner {
    pub(crate) client: Client,
    /// Adds no checksum of its own.
    pub(crate) bare_client: Client,
    pub(crate) bucket: String,
    pub(crate) prefix: String,
    url: String,
    server: String,
    pub(crate) settings: Settings,
    patience: Patience,
    time: SharedTimeSource,
    /// For the bodies of large ranges.
    spare: Arc<Spare>,
}

impl Deref for Bucket {
    type Target = Inner;
    fn deref(&self) -> &Inner {
        &self.0
    }
}

impl Bucket {
    pub(crate) async fn open(address: Address) -> Result<Self> {
        let made = client::make(&address).await?;
        let mut seed = [0u8; 8];
        // without entropy the waits are those of one seed, which is no reason to fail
        let _ = getrandom::fill(&mut seed);
        Ok(Self(Arc::new(Inner {
            client: made.client,
            bare_client: made.bare_client,
            server: made.server,
            time: made.time,
            spare: Arc::new(Spare::new(SPARE_BYTES_MAX, SPARE_PIECE_BYTES)),
            url: address.url(),
            bucket: address.bucket,
            prefix: address.prefix,
            patience: Patience::new(
                Duration::from_secs(address.settings.retry_for_s),
                u64::from_le_bytes(seed),
            ),
            settings: address.settings,
        })))
    }

    /// The key as the server has it.
    pub(crate) fn full(&self, key: &Key) -> String {
        format!("{}{key}", self.prefix)
    }

    pub(crate) fn now(&self) -> SystemTime {
        self.time.now()
    }

    /// Makes a [`Fault`] of an error of the SDK.
    pub(crate) fn fault<E>(&self) -> impl FnOnce(SdkError<E, HttpResponse>) -> Fault + use<E>
    where
        E: ProvideErrorMetadata + std::error::Error + 'static,
    {
        let now = self.now();
        move |error| Fault::of_sdk(&error, now)
    }

    /// [`REQUEST_MAX`]; a day where a bandwidth limit makes bodies slow on purpose.
    fn request_max(&self) -> Duration {
        let limited = self.settings.upload_bytes_per_s_max | self.settings.download_bytes_per_s_max != 0;
        if limited { 96 * REQUEST_MAX } else { REQUEST_MAX }
    }

    /// Runs attempts until one goes well or trying on makes no sense.
    pub(crate) async fn call<T, F>(
        &self,
        operation: &'static str,
        object: &str,
        mut attempt: impl FnMut() -> F,
    ) -> Result<T>
    where
        F: Future<Output = Attempt<T>>,
    {
        let began = Instant::now();
        for number in 0.. {
            self.patience.turn().await;
            let fault = match tokio::time::timeout(self.request_max(), attempt()).await {
                Ok(Ok(done)) => {
                    self.patience.went_well();
                    return Ok(done);
                }
                Ok(Err(fault)) => fault,
                Err(_) => Fault::new(
                    Kind::Timeout,
                    format!("not done after {} s", self.request_max().as_secs()),
                ),
            };
            if fault.answered {
                self.patience.answered();
            }
            match self
                .patience
                .wait(fault.kind, number, began.elapsed(), fault.retry_after)
            {
                Ok(wait) => {
                    tracing::debug!(operation, object, server = %self.server, why = %fault.why, ?wait, "trying again");
                    tokio::time::sleep(wait).await;
                }
                Err(stop) => return Err(self.said(operation, object, fault, Some((stop, number, began.elapsed())))),
            }
        }
        unreachable!("attempts end by a success or by losing patience")
    }

    fn said(
        &self,
        operation: &'static str,
        object: &str,
        fault: Fault,
        given_up: Option<(Stop, u32, Duration)>,
    ) -> StoreError {
        let mut why = if fault.answered {
            format!("{} answered {}", self.server, fault.why)
        } else {
            format!("{} gave no answer: {}", self.server, fault.why)
        };
        let mut tried_enough = false;
        match given_up {
            Some((Stop::Permanent, ..)) | None => {}
            Some((stop, retries, elapsed)) => {
                tried_enough = true;
                let budget = if stop == Stop::Budget {
                    "; too many retries of late"
                } else {
                    ""
                };
                why.push_str(&format!(
                    " (given up after {} attempts in {} s{budget})",
                    retries + 1,
                    elapsed.as_secs()
                ));
            }
        }
        let mut error = StoreError::new(fault.kind, operation, object, why).at(&self.url);
        error.hint = fault.hint;
        error.tried_enough = tried_enough;
        error
    }

    /// An error that needs no further attempt.
    pub(crate) fn error(
        &self,
        kind: Kind,
        operation: &'static str,
        object: impl fmt::Display,
        why: impl fmt::Display,
    ) -> StoreError {
        StoreError::new(kind, operation, object.to_string(), why).at(&self.url)
    }

    pub(crate) fn checksum(&self) -> Option<ChecksumAlgorithm> {
        (self.settings.checksums == Checksums::Auto).then_some(ChecksumAlgorithm::Crc32C)
    }

    pub(crate) fn sse(&self) -> Option<ServerSideEncryption> {
        self.settings.sse.as_deref().map(ServerSideEncryption::from)
    }

    pub(crate) fn storage_class(&self) -> Option<StorageClass> {
        self.settings.storage_class.as_deref().map(StorageClass::from)
    }

    async fn put_whole(&self, key: &Key, body: &Bytes) -> Attempt<()> {
        let request = self.client.put_object().bucket(&self.bucket).key(self.full(key));
        request
            .set_checksum_algorithm(self.checksum())
            .set_server_side_encryption(self.sse())
            .set_ssekms_key_id(self.settings.sse_kms_key_id.clone())
            .set_storage_class(self.storage_class())
            .body(ByteStream::from(body.clone()))
            .send()
            .await
            .map(drop)
            .map_err(self.fault())
    }

    /// Reads a whole object, or `Err` inside with its size when that is more than `bytes_max`.
    async fn get_whole(&self, key: &Key, bytes_max: u64) -> Attempt<std::result::Result<Bytes, u64>> {
        let request = self.client.get_object().bucket(&self.bucket).key(self.full(key));
        let mode = (self.settings.checksums == Checksums::Auto).then_some(ChecksumMode::Enabled);
        let answer = request.set_checksum_mode(mode).send().await.map_err(self.fault())?;
        let told = answer.content_length().and_then(|n| u64::try_from(n).ok());
        if let Some(size_bytes) = told.filter(|n| *n > bytes_max) {
            return Ok(Err(size_bytes));
        }
        match collect(answer.body, told, bytes_max).await? {
            Ok(body) => match told {
                Some(told) if told != body.len() as u64 => Err(Fault::new(
                    Kind::Truncated,
                    format!("a body of {} instead of {told} bytes", body.len()),
                )),
                _ => Ok(Ok(body)),
            },
            Err(at_least) => Ok(Err(at_least)),
        }
    }

    async fn read_range(&self, key: &Key, range: &Range<u64>) -> Attempt<Bytes> {
        let wanted = range.end - range.start;
        let request = self.client.get_object().bucket(&self.bucket).key(self.full(key));
        let answer = request
            .range(format!("bytes={}-{}", range.start, range.end - 1))
            .send()
            .await
            .map_err(self.fault())?;
        let told = answer.content_range().and_then(first_byte);
        if told != Some(range.start) {
            let why = format!("a range that was not asked for ({:?})", answer.content_range());
            return Err(Fault::new(Kind::Other, why));
        }
        // memory for as much as the server says it has, not for what was asked
        let body = match usize::try_from(wanted) {
            Ok(bytes) if bytes >= LENT_BYTES_MIN && answer.content_length == i64::try_from(wanted).ok() => {
                collect_into(answer.body, self.spare.lend(bytes)).await?
            }
            _ => collect(answer.body, Some(wanted), wanted).await?,
        };
        match body {
            Ok(body) if body.len() as u64 == wanted => Ok(body),
            Ok(_) if answer.content_length.is_some_and(|n| n >= 0 && (n as u64) < wanted) => Err(past_end(range)),
            Ok(body) => Err(Fault::new(
                Kind::Truncated,
                format!("{} of {wanted} bytes of the range", body.len()),
            )),
            Err(more) => Err(Fault::new(
                Kind::Other,
                format!("{more} bytes, {wanted} were asked for"),
            )),
        }
    }

    async fn head_once(&self, key: &Key) -> Attempt<Meta> {
        let request = self.client.head_object().bucket(&self.bucket).key(self.full(key));
        let answer = request.send().await.map_err(self.fault())?;
        let size_bytes = answer.content_length().and_then(|n| u64::try_from(n).ok());
        let modified = answer.last_modified().and_then(|t| t.to_millis().ok());
        match (size_bytes, modified) {
            (Some(size_bytes), Some(last_modified_ms)) => Ok(Meta {
                key: key.clone(),
                size_bytes,
                last_modified_ms,
            }),
            _ => Err(Fault::new(Kind::Other, "no Content-Length or no Last-Modified")),
        }
    }

    async fn delete_one(&self, key: &Key) -> Attempt<()> {
        let request = self.client.delete_object().bucket(&self.bucket).key(self.full(key));
        match request.send().await.map_err(self.fault()) {
            Err(fault) if fault.kind == Kind::NotFound && fault.code != "NoSuchBucket" => Ok(()),
            done => done.map(drop),
        }
    }

    async fn delete_batch(&self, keys: &[Key]) -> Attempt<()> {
        let names = keys
            .iter()
            .map(|key| ObjectIdentifier::builder().key(self.full(key)).build());
        let names = names.collect::<std::result::Result<Vec<_>, _>>();
        let all = names.and_then(|names| Delete::builder().set_objects(Some(names)).quiet(true).build());
        let all = all.map_err(|e| Fault::new(Kind::Other, e.to_string()))?;
        let request = self.client.delete_objects().bucket(&self.bucket).delete(all);
        let answer = request.send().await.map_err(self.fault())?;
        let failed = answer.errors().iter().find(|e| e.code() != Some("NoSuchKey"));
        match failed {
            None => Ok(()),
            Some(e) => {
                let code = e.code().unwrap_or_default();
                let kind = match code {
                    "AccessDenied" => Kind::Denied,
                    "SlowDown" => Kind::SlowDown,
                    "InternalError" => Kind::Unavailable,
                    _ => Kind::Other,
                };
                let object = e.key().unwrap_or_default();
                let said = e.message().unwrap_or_default();
                Err(Fault::new(kind, format!("{code} for {object} ({said})")))
            }
        }
    }
}

/// The first byte that `Content-Range: bytes 5-9/100` tells.
fn first_byte(content_range: &str) -> Option<u64> {
    content_range.strip_prefix("bytes ")?.split('-').next()?.parse().ok()
}

fn past_end(range: &Range<u64>) -> Fault {
    let mut fault = Fault::new(
        Kind::Truncated,
        format!(
            "less: bytes {}..{} asked, the object ends before",
            range.start, range.end
        ),
    );
    // it will be as short the next time
    fault.code = "InvalidRange".to_owned();
    fault
}

/// All of a body; `Err` inside when it goes beyond `bytes_max`.
async fn collect(mut body: ByteStream, told: Option<u64>, bytes_max: u64) -> Attempt<std::result::Result<Bytes, u64>> {
    let reserve = told.unwrap_or(0).min(bytes_max).min(RESERVE_BYTES_MAX);
    let mut all = BytesMut::with_capacity(usize::try_from(reserve).unwrap_or(0));
    while let Some(piece) = body.next().await {
        let piece = piece.map_err(|e| Fault::of_body(&e))?;
        if (all.len() + piece.len()) as u64 > bytes_max {
            return Ok(Err((all.len() + piece.len()) as u64));
        }
        all.extend_from_slice(&piece);
    }
    Ok(Ok(all.freeze()))
}

/// All of a body that is as long as `memory`, or shorter; `Err` inside when it is longer.
async fn collect_into(mut body: ByteStream, mut memory: Lent) -> Attempt<std::result::Result<Bytes, u64>> {
    let mut filled = 0;
    while let Some(piece) = body.next().await {
        let piece = piece.map_err(|e| Fault::of_body(&e))?;
        let end = filled + piece.len();
        match memory.bytes_mut().get_mut(filled..end) {
            Some(place) => place.copy_from_slice(&piece),
            None => return Ok(Err(end as u64)),
        }
        filled = end;
    }
    Ok(Ok(memory.freeze().slice(..filled)))
}

#[async_trait]
impl Store for Bucket {
    fn url(&self) -> String {
        self.url.clone()
    }

    async fn put(&self, key: &Key, body: Bytes) -> Result<()> {
        if body.len() as u64 > self.settings.part_bytes {
            return self.put_in_parts(key, body).await;
        }
        self.call("put", key.as_str(), || self.put_whole(key, &body)).await
    }

    async fn get(&self, key: &Key, bytes_max: u64) -> Result<Bytes> {
        let read = self
            .call("get", key.as_str(), || self.get_whole(key, bytes_max))
            .await?;
        read.map_err(|size_bytes| {
            let why = format!("the object has {size_bytes} bytes, at most {bytes_max} were expected");
            self.error(Kind::TooLarge, "get", key, why)
        })
    }

    async fn get_range(&self, key: &Key, range: Range<u64>) -> Result<Bytes> {
        if range.start > range.end {
            return Err(self.error(Kind::Invalid, "get_range", key, "the range ends before it starts"));
        }
        let past_end = || {
            let why = format!("bytes {}..{} asked, the object ends before", range.start, range.end);
            self.error(Kind::Truncated, "get_range", key, why)
        };
        // HTTP has no empty range, and some servers can't read the numbers of an absurd one; both must still tell whether
        // the object is there and reaches so far.
        if range.is_empty() || range.end > OBJECT_BYTES_MAX {
            let size_bytes = self.head(key).await?.size_bytes;
            return if range.end <= size_bytes {
                Ok(Bytes::new())
            } else {
                Err(past_end())
            };
        }
        let read = || async {
            match self.read_range(key, &range).await {
                // an answer to be had again: no reason to be patient
                Err(fault) if fault.code == "InvalidRange" => Ok(None),
                done => done.map(Some),
            }
        };
        self.call("get_range", key.as_str(), read).await?.ok_or_else(past_end)
    }

    async fn head(&self, key: &Key) -> Result<Meta> {
        self.call("head", key.as_str(), || self.head_once(key)).await
    }

    fn list(&self, prefix: &str) -> BoxStream<'static, Result<Meta>> {
        self.pages(prefix)
    }

    async fn delete(&self, keys: &[Key]) -> Result<()> {
        for batch in keys.chunks(DELETE_BATCH) {
            let shown = batch.first().map_or("", Key::as_str);
            let all = match batch {
                [one] => self.call("delete", shown, || self.delete_one(one)).await,
                _ => self.call("delete", shown, || self.delete_batch(batch)).await,
            };
            match all {
                // a server without DELETE of many
                Err(e) if e.kind == Kind::Other && batch.len() > 1 && e.source.contains("NotImplemented") => {
                    for key in batch {
                        self.call("delete", key.as_str(), || self.delete_one(key)).await?;
                    }
                }
                done => done?,
            }
        }
        Ok(())
    }

    async fn try_out(&self, scratch: &Key) -> Result<Tried> {
        self.try_all(scratch).await
    }

    fn local_path(&self, _key: &Key) -> Option<PathBuf> {
        None
    }
}
