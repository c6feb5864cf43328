//! An open image, and the layer below it.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};

use crate::header::Header;
use crate::medium::Medium;
use crate::tables::Tables;
use crate::write::Writer;
use crate::{Error, Result};

/// An image with its backing chain. Any number of threads may read and write it at once, as long as they don't write
/// what another one reads.
#[derive(Debug)]
pub struct Image {
    pub(crate) name: String,
    pub(crate) medium: Arc<dyn Medium>,
    pub(crate) header: Header,
    pub(crate) backing: Option<Box<Layer>>,
    pub(crate) state: Mutex<State>,
    /// Held shared by who writes data, alone by who makes tables durable: no table tells of data that isn't written.
    pub(crate) gate: RwLock<()>,
}

/// What the lock protects.
#[derive(Debug)]
pub(crate) struct State {
    pub tables: Tables,
    /// `None`: open for reading.
    pub writer: Option<Writer>,
}

/// A backing image.
#[derive(Debug)]
pub(crate) enum Layer {
    /// Of this format too.
    Qcow2(Box<Image>),
    /// Byte `n` is byte `n`.
    Raw(Raw),
}

/// A raw backing image.
#[derive(Debug)]
pub(crate) struct Raw {
    pub name: String,
    pub medium: Arc<dyn Medium>,
    pub size_bytes: u64,
}

impl Image {
    pub(crate) fn new(
        name: String,
        medium: Arc<dyn Medium>,
        header: Header,
        backing: Option<Layer>,
        writable: bool,
    ) -> Result<Self> {
        let tables = Tables::load(&*medium, &header, &name)?;
        let writer = if writable {
            header.check_writable(&name)?;
            Some(Writer::new(&*medium, &header, &tables, &name)?)
        } else {
            None
        };
        Ok(Self {
            name,
            medium,
            header,
            backing: backing.map(Box::new),
            state: Mutex::new(State { tables, writer }),
            gate: RwLock::new(()),
        })
    }

    /// Size of the disk in bytes.
    pub fn size_bytes(&self) -> u64 {
        self.header.size_bytes
    }

    /// What the header says.
    pub fn header(&self) -> &Header {
        &self.header
    }

    /// What the image lies on, top first.
    pub fn media(&self) -> Vec<Arc<dyn Medium>> {
        let mut all = vec![self.medium.clone()];
        let mut layer = self.backing.as_deref();
        while let Some(below) = layer {
            layer = match below {
                Layer::Qcow2(image) => {
                    all.push(image.medium.clone());
                    image.backing.as_deref()
                }
                Layer::Raw(raw) => {
                    all.push(raw.medium.clone());
                    None
                }
            };
        }
        all
    }

    pub(crate) fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn io(&self, what: &str) -> impl Fn(std::io::Error) -> Error {
        let (what, name) = (format!("{what} qcow2 image"), self.name.clone());
        move |error| Error::io(&what, &name, &error)
    }

    pub(crate) fn corrupt(&self, why: impl std::fmt::Display) -> Error {
        Error::corrupt(&self.name, why)
    }
}
