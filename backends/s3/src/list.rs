//! Listings, page by page.

use aws_sdk_s3::types::Object;
use futures::StreamExt;
use futures::stream::{self, BoxStream};
use store::{Key, Kind, Meta, Result, split_prefix};

use crate::bucket::{Attempt, Bucket};
use crate::fault::Fault;

/// A page of a listing.
struct Page {
    metas: Vec<Meta>,
    next: Option<String>,
}

/// Where a listing stands.
enum At {
    Begin,
    Token(String),
    End,
}

impl Bucket {
    pub(crate) fn pages(&self, prefix: &str) -> BoxStream<'static, Result<Meta>> {
        if let Err(e) = split_prefix(prefix) {
            return stream::iter([Err(self.error(e.kind, "list", prefix, e.source))]).boxed();
        }
        let (bucket, prefix) = (self.clone(), prefix.to_owned());
        // a server that renames while it lists (`rclone serve s3`) may tell a key twice, one after the other
        let mut last: Option<Key> = None;
        let is_new = move |meta: &Result<Meta>| {
            let key = meta.as_ref().ok().map(|meta| &meta.key);
            let new = key.is_none() || key != last.as_ref();
            if let Some(key) = key.filter(|_| new) {
                last = Some(key.clone());
            }
            std::future::ready(new)
        };
        stream::unfold(At::Begin, move |at| {
            let (bucket, prefix) = (bucket.clone(), prefix.clone());
            async move {
                let token = match at {
                    At::Begin => None,
                    At::Token(token) => Some(token),
                    At::End => return None,
                };
                let shown = if prefix.is_empty() { "all objects" } else { &prefix };
                let page = bucket
                    .call("list", shown, || bucket.page(&prefix, token.as_deref()))
                    .await;
                Some(match page {
                    Ok(page) => {
                        let at = page.next.map_or(At::End, At::Token);
                        (page.metas.into_iter().map(Ok).collect::<Vec<_>>(), at)
                    }
                    Err(e) => (vec![Err(e)], At::End),
                })
            }
        })
        .map(stream::iter)
        .flatten()
        .filter(is_new)
        .boxed()
    }

    async fn page(&self, prefix: &str, token: Option<&str>) -> Attempt<Page> {
        let request = self.client.list_objects_v2().bucket(&self.bucket);
        let answer = request
            .prefix(format!("{}{prefix}", self.prefix))
            .set_continuation_token(token.map(str::to_owned))
            .send()
            .await
            .map_err(self.fault())?;
        let next = match (answer.is_truncated(), answer.next_continuation_token()) {
            (Some(true), Some(next)) if Some(next) != token => Some(next.to_owned()),
            // a part that is taken for the whole would be objects lost
            (Some(true), _) => {
                return Err(Fault::new(
                    Kind::Other,
                    "a page that isn't the last, without the way to the next",
                ));
            }
            _ => None,
        };
        let metas = answer
            .contents()
            .iter()
            .filter_map(|o| self.listed(o))
            .collect::<Attempt<_>>()?;
        Ok(Page { metas, next })
    }

    /// Objects of others in the bucket, whose names are no keys, are passed over.
    fn listed(&self, object: &Object) -> Option<Attempt<Meta>> {
        let key = Key::listed(object.key()?.strip_prefix(&self.prefix)?)?;
        let size_bytes = object.size().and_then(|n| u64::try_from(n).ok());
        let modified = object.last_modified().and_then(|t| t.to_millis().ok());
        Some(match (size_bytes, modified) {
            (Some(size_bytes), Some(last_modified_ms)) => Ok(Meta {
                key,
                size_bytes,
                last_modified_ms,
            }),
            _ => Err(Fault::new(
                Kind::Other,
                format!("no size or no Last-Modified for {key}"),
            )),
        })
    }
}
