//! The leader election flags that upstream's control plane daemons share.

use clap::Args;

use crate::GoDuration;

/// How a daemon stands for election. The Lease's name has no default here: each daemon has its own.
#[derive(Args, Clone, Debug)]
pub struct LeaderElectionFlags {
    /// Start a leader election client and gain leadership before executing the main loop.
    #[arg(long, default_value_t = true)]
    pub leader_elect: bool,
    /// The duration that non-leader candidates will wait after observing a leadership renewal.
    #[arg(long, default_value = "15s")]
    pub leader_elect_lease_duration: GoDuration,
    /// The interval between attempts by the acting master to renew before it stops leading.
    #[arg(long, default_value = "10s")]
    pub leader_elect_renew_deadline: GoDuration,
    /// The duration the clients should wait between attempting acquisition and renewal of a leadership.
    #[arg(long, default_value = "2s")]
    pub leader_elect_retry_period: GoDuration,
    /// The type of resource object that is used for locking.
    #[arg(long, default_value = "leases", value_parser = ["leases"])]
    pub leader_elect_resource_lock: String,
    /// The name of the resource object that is used for locking; the daemon's name when empty.
    #[arg(long, default_value = "")]
    pub leader_elect_resource_name: String,
    /// The namespace of the resource object that is used for locking.
    #[arg(long, default_value = "kube-system")]
    pub leader_elect_resource_namespace: String,
}
