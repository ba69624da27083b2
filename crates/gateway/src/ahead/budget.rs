//! How much of request bodies may be held back at once to be looked at: all together, and of one tenant.

use domain::id::TenantId;
use parking_lot::Mutex;
use rustc_hash::FxHashMap;
use std::sync::Arc;

/// One tenant may take one part in so many.
const TENANTS_PART: usize = 4;

/// Why there is no room.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Full {
    /// All bodies together take as much as they may.
    ForAll,
    /// Those of the tenant do.
    ForTenant,
}

/// How much of bodies may be held back at once. What is taken of it returns when the bytes went on.
#[derive(Clone)]
pub(crate) struct PeekBudget(Arc<Budget>);

struct Budget {
    max_bytes: usize,
    taken: Mutex<Taken>,
}

#[derive(Default)]
struct Taken {
    bytes: usize,
    /// Of each tenant that has taken something.
    of_tenants: FxHashMap<TenantId, usize>,
}

/// What is held back of one body, as far as it was taken.
pub(crate) struct PeekPart {
    budget: Arc<Budget>,
    tenant: TenantId,
    /// How much the tenant may take, this body included.
    share_bytes: usize,
    bytes: usize,
}

impl PeekBudget {
    pub(crate) fn new(max_bytes: usize) -> Self {
        Self(Arc::new(Budget { max_bytes, taken: Mutex::default() }))
    }

    /// For a body of which at most `body_max_bytes` are looked at. Nothing is taken of the budget yet. However small a
    /// tenant's share, one such body has room in it, with a quarter more for its frames.
    pub(crate) fn part(&self, tenant: &TenantId, body_max_bytes: usize) -> PeekPart {
        let one_body = body_max_bytes.saturating_add(body_max_bytes / 4);
        let share_bytes = (self.0.max_bytes / TENANTS_PART).max(one_body);
        PeekPart { budget: self.0.clone(), tenant: tenant.clone(), share_bytes, bytes: 0 }
    }
}

impl PeekPart {
    /// Takes so much more.
    ///
    /// # Errors
    /// Where there is no room; then nothing is taken.
    pub(crate) fn take(&mut self, bytes: usize) -> Result<(), Full> {
        let mut taken = self.budget.taken.lock();
        let all = taken.bytes.saturating_add(bytes);
        if all > self.budget.max_bytes {
            return Err(Full::ForAll);
        }
        let of_tenant = taken.of_tenants.get(&self.tenant).copied().unwrap_or(0).saturating_add(bytes);
        if of_tenant > self.share_bytes {
            return Err(Full::ForTenant);
        }
        taken.bytes = all;
        taken.of_tenants.insert(self.tenant.clone(), of_tenant);
        self.bytes += bytes;
        Ok(())
    }
}

impl Drop for PeekPart {
    fn drop(&mut self) {
        let mut taken = self.budget.taken.lock();
        taken.bytes -= self.bytes;
        if let Some(of_tenant) = taken.of_tenants.get_mut(&self.tenant) {
            *of_tenant -= self.bytes;
            if *of_tenant == 0 {
                taken.of_tenants.remove(&self.tenant);
            }
        }
    }
}

impl std::fmt::Debug for PeekPart {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("PeekPart").field("bytes", &self.bytes).finish_non_exhaustive()
    }
}

#[cfg(test)]
#[path = "budget_tests.rs"]
mod tests;
