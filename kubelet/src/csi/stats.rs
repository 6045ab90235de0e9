//! How full volumes are.

use api::{Value, object};

use super::Csi;
use super::api::{Capability, Place, STATS, StatsResponse};
use super::files::{Data, entries};
use super::mount::text;

impl Csi {
    /// What the summary shows of a pod's volumes: their names with figures. Those whose drivers do not say are left out.
    pub(crate) async fn stats(&self, uid: &str, now: &str) -> Vec<(String, Value)> {
        let mut shown = Vec::new();
        for dir in entries(&self.local.layout.volumes(uid)).unwrap_or_default() {
            let Ok(Some(data)) = Data::load(&dir) else { continue };
            let target = dir.join("mount");
            let Ok(driver) = self.local.driver(&data.driver) else { continue };
            if !driver.can(Capability::Stats).await.unwrap_or_default() {
                continue;
            }
            let staging = self.local.layout.staging(&data.driver, &data.handle);
            let question = Place {
                volume_id: data.handle.clone(),
                path: text(&target),
                staging_path: if staging.exists() { text(&staging) } else { String::new() },
            };
            match driver.call::<_, StatsResponse>(STATS, question).await {
                Ok(stats) => shown.push((data.name, figures(&stats, now))),
                Err(error) => {
                    tracing::warn!(volume = data.name, err = %error, "Cannot ask how full a volume is")
                }
            }
        }
        shown
    }
}

fn figures(stats: &StatsResponse, now: &str) -> Value {
    let mut shown = object!({"time": now});
    for usage in &stats.usage {
        let names = match usage.unit {
            1 => ["availableBytes", "capacityBytes", "usedBytes"],
            2 => ["inodesFree", "inodes", "inodesUsed"],
            _ => continue,
        };
        for (name, amount) in names.into_iter().zip([usage.available, usage.total, usage.used]) {
            shown.set(&[name], amount);
        }
    }
    if let Some(condition) = &stats.condition {
        shown.set(&["volumeHealthStats"], object!({"abnormal": (condition.abnormal)}));
    }
    shown
}
