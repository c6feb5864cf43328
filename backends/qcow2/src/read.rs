//! Reading: where bytes are, and fetching them from there.

use std::ops::Range;

use crate::compressed;
use crate::entry::Entry;
use crate::image::{Image, Layer, State};
use crate::{Error, Kind, Result};

/// Where a run of the disk comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Source {
    /// Zeros.
    Zero,
    /// The layer below, at the same offset; zeros where there is none.
    Below,
    /// The medium, from here on.
    Host(u64),
    /// A compressed cluster; `skip` bytes of it come before the run.
    Compressed { offset: u64, len: u64, skip: u64 },
}

/// A run of the disk, and its source.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Extent {
    pub guest: Range<u64>,
    pub source: Source,
}

impl Extent {
    fn is_continued_by(&self, next: Source) -> bool {
        match (self.source, next) {
            (Source::Zero, Source::Zero) | (Source::Below, Source::Below) => true,
            (Source::Host(a), Source::Host(b)) => a + (self.guest.end - self.guest.start) == b,
            _ => false,
        }
    }
}

/// A plain read, or one past the page cache.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum How {
    Cached,
    Medium,
}

impl Image {
    /// The entry of a cluster. A writer reads tables from the medium, so that reading back checks them too.
    pub(crate) fn entry(&self, state: &mut State, cluster: u64) -> Result<Entry> {
        let per_table = self.header.l2_entries();
        let (l1, l2) = ((cluster / per_table) as usize, (cluster % per_table) as usize);
        let past_cache = state.writer.is_some();
        let table = state
            .tables
            .l2(l1, &*self.medium, &self.header, &self.name, past_cache)?;
        let raw = table.and_then(|t| t.entries.get(l2).copied()).unwrap_or(0);
        Entry::decode(raw, self.header.cluster_bits, self.header.version).map_err(|why| {
            self.corrupt(format!(
                "at guest offset {}: {why}",
                cluster << self.header.cluster_bits
            ))
        })
    }

    /// The run from `at` that has one source, at most to `end` and to the end of its L2 table.
    pub(crate) fn extent(&self, state: &mut State, at: u64, end: u64) -> Result<Extent> {
        let cluster_bytes = self.header.cluster_bytes();
        let span = self.header.l2_span_bytes();
        let end = end.min((at / span + 1).saturating_mul(span));
        if state
            .tables
            .l2_offset((at / span) as usize, &self.header, &self.name)?
            .is_none()
        {
            let source = Source::Below;
            return Ok(Extent { guest: at..end, source });
        }
        let mut run: Option<Extent> = None;
        let mut from = at;
        while from < end {
            let cluster = from / cluster_bytes;
            let to = ((cluster + 1) * cluster_bytes).min(end);
            let skip = from % cluster_bytes;
            let source = match self.entry(state, cluster)? {
                Entry::Unallocated => Source::Below,
                Entry::Zero { .. } => Source::Zero,
                Entry::Data { host, .. } => Source::Host(host + skip),
                Entry::Compressed { offset, len } => Source::Compressed { offset, len, skip },
            };
            match &mut run {
                None => {
                    run = Some(Extent {
                        guest: from..to,
                        source,
                    })
                }
                Some(run) if run.is_continued_by(source) => run.guest.end = to,
                Some(_) => break,
            }
            from = to;
        }
        run.ok_or_else(|| Error::new(Kind::Internal, format!("an empty run of {} was asked for", self.name)))
    }

    /// The first run of data at or after `offset` (`None`: only zeros follow). What lies between runs reads as zeros.
    ///
    /// # Errors
    /// `Corrupt`, `Io`.
    pub fn next_data(&self, offset: u64) -> Result<Option<Range<u64>>> {
        self.next_data_before(offset, self.header.size_bytes)
    }

    fn next_data_before(&self, mut at: u64, end: u64) -> Result<Option<Range<u64>>> {
        while at < end {
            let extent = self.extent(&mut self.lock(), at, end)?;
            let found = match extent.source {
                Source::Zero => None,
                Source::Below => self.below_next_data(extent.guest.clone())?,
                Source::Host(_) | Source::Compressed { .. } => Some(extent.guest.clone()),
            };
            if found.is_some() {
                return Ok(found);
            }
            at = extent.guest.end;
        }
        Ok(None)
    }

    /// The first data of the layer below within a run.
    pub(crate) fn below_next_data(&self, run: Range<u64>) -> Result<Option<Range<u64>>> {
        let found = match self.backing.as_deref() {
            None => None,
            Some(Layer::Qcow2(image)) => image.next_data_before(run.start, run.end.min(image.size_bytes()))?,
            Some(Layer::Raw(raw)) if run.start < raw.size_bytes => raw
                .medium
                .next_data(run.start)
                .map_err(|e| Error::io("find the holes of", &raw.name, &e))?
                .map(|r| r.start.max(run.start)..r.end.min(run.end).min(raw.size_bytes)),
            Some(Layer::Raw(_)) => None,
        };
        Ok(found.filter(|r| r.start < run.end && r.start < r.end))
    }

    /// Fills `buffer` from the disk.
    ///
    /// # Errors
    /// `Corrupt`, `Io`; `Internal` past the end of the disk.
    pub fn read_at(&self, buffer: &mut [u8], offset: u64) -> Result<()> {
        self.read(buffer, offset, How::Cached)
    }

    /// As [`Image::read_at`], past the page cache: of the tables and data of this image, not of its backing images.
    ///
    /// # Errors
    /// As [`Image::read_at`].
    pub fn read_back(&self, buffer: &mut [u8], offset: u64) -> Result<()> {
        self.read(buffer, offset, How::Medium)
    }

    fn read(&self, buffer: &mut [u8], offset: u64, how: How) -> Result<()> {
        let end = offset.checked_add(buffer.len() as u64);
        let Some(end) = end.filter(|end| *end <= self.header.size_bytes) else {
            let (len, size) = (buffer.len(), self.header.size_bytes);
            let why = format!(
                "{len} bytes at {offset} are beyond the end of {} ({size} bytes)",
                self.name
            );
            return Err(Error::new(Kind::Internal, why));
        };
        let (mut rest, mut at) = (buffer, offset);
        while at < end {
            let extent = self.extent(&mut self.lock(), at, end)?;
            let (now, after) = rest.split_at_mut((extent.guest.end - at) as usize);
            self.read_extent(now, &extent, how)?;
            (rest, at) = (after, extent.guest.end);
        }
        Ok(())
    }

    fn read_extent(&self, buffer: &mut [u8], extent: &Extent, how: How) -> Result<()> {
        match extent.source {
            Source::Zero => buffer.fill(0),
            Source::Below => self.read_below(buffer, extent.guest.start)?,
            Source::Host(host) => self.read_host(buffer, host, how)?,
            Source::Compressed { offset, len, skip } => {
                let cluster = self.inflated(offset, len, how)?;
                let skip = skip as usize;
                buffer.copy_from_slice(&cluster[skip..skip + buffer.len()]);
            }
        }
        Ok(())
    }

    /// Reads from the layer below; zeros beyond its end.
    pub(crate) fn read_below(&self, buffer: &mut [u8], offset: u64) -> Result<()> {
        let size_bytes = match self.backing.as_deref() {
            None => 0,
            Some(Layer::Qcow2(image)) => image.size_bytes(),
            Some(Layer::Raw(raw)) => raw.size_bytes,
        };
        let len = size_bytes.saturating_sub(offset).min(buffer.len() as u64) as usize;
        let (there, beyond) = buffer.split_at_mut(len);
        beyond.fill(0);
        match self.backing.as_deref() {
            _ if there.is_empty() => Ok(()),
            None => Ok(()),
            Some(Layer::Qcow2(image)) => image.read_at(there, offset),
            Some(Layer::Raw(raw)) => raw
                .medium
                .read_at(there, offset)
                .map_err(|e| Error::io("read", &raw.name, &e)),
        }
    }

    /// Reads clusters. The last one of a file may end with it; the rest is zeros.
    fn read_host(&self, buffer: &mut [u8], host: u64, how: How) -> Result<()> {
        match self.read_medium(buffer, host, how) {
            Err(error) if error.kind() == std::io::ErrorKind::UnexpectedEof => {
                let len_bytes = self.medium.len_bytes().map_err(self.io("read the size of"))?;
                let end = len_bytes.next_multiple_of(self.header.cluster_bytes());
                if host.saturating_add(buffer.len() as u64) > end {
                    let why = format!("a cluster at {host} is beyond the end of the file of {len_bytes} bytes");
                    return Err(self.corrupt(why));
                }
                let len = len_bytes.saturating_sub(host).min(buffer.len() as u64) as usize;
                buffer[len..].fill(0);
                self.read_medium(&mut buffer[..len], host, how).map_err(self.io("read"))
            }
            done => done.map_err(self.io("read")),
        }
    }

    fn read_medium(&self, buffer: &mut [u8], host: u64, how: How) -> std::io::Result<()> {
        match how {
            How::Cached => self.medium.read_at(buffer, host),
            How::Medium => self.medium.read_back(buffer, host),
        }
    }

    /// A compressed cluster, whole.
    fn inflated(&self, offset: u64, len: u64, how: How) -> Result<Vec<u8>> {
        let len_bytes = self.medium.len_bytes().map_err(self.io("read the size of"))?;
        // Sectors are counted whole, and the last one may end with the file.
        let len = len
            .min(len_bytes.saturating_sub(offset))
            .min(2 * self.header.cluster_bytes());
        let mut data = vec![0; len as usize];
        self.read_medium(&mut data, offset, how).map_err(self.io("read"))?;
        let mut cluster = vec![0; self.header.cluster_bytes() as usize];
        compressed::inflate(self.header.compression, &data, &mut cluster)
            .map_err(|why| self.corrupt(format!("at host offset {offset}: {why}")))?;
        Ok(cluster)
    }

    /// Fills `buffer` with what a cluster holds from `skip` on, whatever its entry says. For who holds the lock.
    pub(crate) fn read_old(&self, buffer: &mut [u8], cluster: u64, skip: u64, entry: Entry) -> Result<()> {
        let start = cluster * self.header.cluster_bytes() + skip;
        let source = match entry {
            Entry::Unallocated => Source::Below,
            Entry::Zero { .. } => Source::Zero,
            Entry::Data { host, .. } => Source::Host(host + skip),
            Entry::Compressed { offset, len } => Source::Compressed { offset, len, skip },
        };
        let guest = start..start + buffer.len() as u64;
        self.read_extent(buffer, &Extent { guest, source }, How::Cached)
    }
}
