//! Compressed clusters: raw deflate, or one zstd frame.

use miniz_oxide::inflate::TINFLStatus;
use miniz_oxide::inflate::core::{DecompressorOxide, decompress};

/// How an image's clusters are compressed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Compression {
    /// Deflate without a zlib header.
    Deflate,
    /// A zstd frame.
    Zstd,
}

/// Fills `cluster`. `data` may go on after the compressed bytes: its length is known in sectors only.
pub(crate) fn inflate(how: Compression, data: &[u8], cluster: &mut [u8]) -> Result<(), String> {
    let done = match how {
        Compression::Deflate => {
            let mut state = Box::<DecompressorOxide>::default();
            let (status, _, done) = decompress(&mut state, data, cluster, 0, 0);
            if !matches!(status, TINFLStatus::Done | TINFLStatus::HasMoreOutput) {
                return Err(format!("a compressed cluster can't be inflated ({status:?})"));
            }
            done
        }
        Compression::Zstd => {
            let frame = zstd::zstd_safe::find_frame_compressed_size(data)
                .map_err(|_| "a compressed cluster holds no zstd frame".to_owned())?;
            let frame = data.get(..frame).ok_or("a compressed cluster is cut short")?;
            zstd::bulk::decompress_to_buffer(frame, cluster).map_err(|e| format!("a compressed cluster: {e}"))?
        }
    };
    if done == cluster.len() {
        Ok(())
    } else {
        Err(format!(
            "a compressed cluster holds {done} bytes in place of {}",
            cluster.len()
        ))
    }
}
