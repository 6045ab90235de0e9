//! DenyServiceExternalIPs: Services take no addresses that are not the cluster's to give.

use api::Value;
use api::error::Result;

use super::{forbid, is};
use crate::registry::Call;

pub(super) fn validate(call: &Call, new: &Value, old: Option<&Value>) -> Result<()> {
    if !is(call, "", "services") {
        return Ok(());
    }
    let before = old.map_or(&[][..], |old| old.array_at(&["spec", "externalIPs"]));
    if new.array_at(&["spec", "externalIPs"]).iter().all(|ip| before.contains(ip)) {
        return Ok(());
    }
    Err(forbid(call, new.name(), "Use of external IPs is denied by admission control"))
}
