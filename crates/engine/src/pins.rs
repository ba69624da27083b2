//! Catalogs that tenants are pinned to: those that were needed last are kept ready.

use crate::{engine::Engine, open::Open, ports::CatalogReader, requests::EngineError};
use domain::{catalog::Catalog, entry::Profile, op::Op};
use parking_lot::RwLock;
use std::sync::{
    Arc, OnceLock,
    atomic::{AtomicBool, Ordering},
};

/// Catalogs that are kept ready.
const CATALOGS_MAX: usize = 32;

/// Older catalogs, as they are needed.
#[derive(Default)]
pub(crate) struct Pins {
    reader: OnceLock<Arc<dyn CatalogReader>>,
    /// The one that was read last is at the end.
    ready: RwLock<Vec<Arc<Catalog>>>,
    /// Whether one of those that were ready leaves a limit open in an outage.
    any_open: AtomicBool,
}

impl Pins {
    /// One that is ready.
    pub(crate) fn ready(&self, version: u32) -> Option<Arc<Catalog>> {
        self.ready.read().iter().find(|catalog| catalog.version == version).cloned()
    }

    /// Whether a tenant may be pinned to a catalog that leaves a limit open in an outage.
    pub(crate) fn any_open(&self) -> bool {
        self.any_open.load(Ordering::Relaxed)
    }

    fn keep(&self, catalog: Arc<Catalog>) {
        self.any_open.fetch_or(catalog.any_open(), Ordering::Relaxed);
        let mut ready = self.ready.write();
        if ready.iter().any(|known| known.version == catalog.version) {
            return;
        }
        if ready.len() >= CATALOGS_MAX {
            ready.remove(0);
        }
        ready.push(catalog);
    }
}

impl Engine {
    /// Who reads the catalogs that tenants are pinned to. Only the first call has an effect.
    pub fn set_catalog_reader(&self, reader: Arc<dyn CatalogReader>) {
        let _ = self.pins.reader.set(reader);
    }

    /// The catalog that decides for a tenant with this profile: the one in force, unless it is pinned.
    ///
    /// # Errors
    /// A failing ledger, or a catalog that can't be read.
    pub async fn catalog_of(&self, profile: &Profile) -> Result<Arc<Catalog>, EngineError> {
        match profile.catalog_pin {
            None => Ok(self.catalog()),
            Some(version) => self.catalog_at(version).await,
        }
    }

    /// As [`Engine::catalog_of`], if it is in memory.
    pub(crate) fn catalog_at_hand(&self, profile: &Profile) -> Option<Arc<Catalog>> {
        match profile.catalog_pin {
            None => Some(self.catalog()),
            Some(version) => self.pins.ready(version),
        }
    }

    /// A version of the catalog.
    ///
    /// # Errors
    /// [`EngineError::UnknownCatalog`] where there is none, [`EngineError::UnreadableCatalog`] where this version of the
    /// program can't read it; a failing ledger.
    pub async fn catalog_at(&self, version: u32) -> Result<Arc<Catalog>, EngineError> {
        if let Some(catalog) = self.pins.ready(version) {
            return Ok(catalog);
        }
        let in_force = self.catalog();
        let catalog = if in_force.version == version {
            in_force
        } else {
            let stored = self.ledger.catalogs().await?.into_iter().find(|stored| stored.version == version);
            let stored = stored.ok_or(EngineError::UnknownCatalog(version))?;
            let unreadable = |why| EngineError::UnreadableCatalog { version, why };
            let reader = self.pins.reader.get().ok_or_else(|| unreadable("nothing reads catalogs here".into()))?;
            let mut catalog = reader.read(&stored.text).map_err(unreadable)?;
            catalog.version = version;
            Arc::new(catalog)
        };
        self.pins.keep(catalog.clone());
        Ok(catalog)
    }
}

impl<'a> Open<'a> {
    /// The catalog by which something is kept. Facts are read by the one in force, for all tenants alike, and so they are
    /// kept: by the one that decides for the tenant only if that alone has their meters.
    pub(crate) fn catalog_of_fact(&self, op: &Op) -> &'a Catalog {
        let Op::Record(fact) = op else { return self.catalog };
        let is_in_force =
            |catalog: &Catalog| fact.movements.iter().all(|(meter, _)| catalog.meters.contains_key(meter));
        match self.book.tenant.profile.catalog_pin {
            Some(_) if is_in_force(self.in_force) => self.in_force,
            _ => self.catalog,
        }
    }

    /// The version that the tenant is pinned to.
    pub(crate) fn catalog_pin(&self) -> Option<u32> {
        self.book.tenant.profile.catalog_pin
    }

    /// The version in force, where another decides.
    pub(crate) fn pinned_beside(&self) -> Option<u32> {
        self.catalog_pin().map(|_| self.in_force.version)
    }
}
