//! What a pod takes of its node while it is there. It is asked of all pods whenever another one is to be let in, and
//! worked out once for each.

use std::ops::Deref;
use std::sync::{Arc, OnceLock};

use api::Value;
use placement::{HostPorts, Resources};

use crate::claims::without_claimed;

/// Resources and ports.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Needs {
    /// What it asks for, but for resources that come with a claim: those are no matter of device plug-ins.
    pub requests: Resources,
    pub ports: HostPorts,
}

impl Needs {
    pub(crate) fn of(pod: &Arc<Value>) -> Self {
        let requests = placement::pod_requests(&without_claimed(pod));
        Self { requests, ports: HostPorts::of(pod.get("spec")) }
    }

    /// How much it asks for of a resource.
    pub(super) fn amount(&self, resource: &str) -> i64 {
        match resource {
            "pods" => 1,
            "cpu" => self.requests.milli_cpu,
            "memory" => self.requests.memory,
            "ephemeral-storage" => self.requests.storage,
            other => self.requests.get(other),
        }
    }
}

/// A pod that is here, and what it takes.
pub(crate) type Taken = (Arc<Value>, Arc<Needs>);

/// A pod as it is wanted: another form of it is another of these, with needs of its own.
pub(crate) struct Wanted {
    pod: Arc<Value>,
    needs: OnceLock<Arc<Needs>>,
}

impl Wanted {
    /// What the pod takes if it is given what it asks for.
    pub(crate) fn needs(&self) -> Arc<Needs> {
        self.needs.get_or_init(|| Arc::new(Needs::of(&self.pod))).clone()
    }
}

impl From<Arc<Value>> for Wanted {
    fn from(pod: Arc<Value>) -> Self {
        Self { pod, needs: OnceLock::new() }
    }
}

impl Deref for Wanted {
    type Target = Arc<Value>;

    fn deref(&self) -> &Arc<Value> {
        &self.pod
    }
}
