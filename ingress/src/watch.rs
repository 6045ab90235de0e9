//! Follows the API and keeps the table up to date.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use api::Value;
use arc_swap::ArcSwap;
use client::resource::{ENDPOINT_SLICES, INGRESS_CLASSES, INGRESSES, SECRETS, SERVICES};
use client::{Client, Informer};
use daemon::Tasks;
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

use crate::args::Args;
use crate::routes::{ANNOTATIONS, Inputs, Table};
use crate::{status, tls};

const SERVICE_NAME: &str = "kubernetes.io/service-name";
/// Changes that come together are taken together.
const GATHER: Duration = Duration::from_millis(20);

/// The informers and what they feed.
pub(crate) struct Watcher {
    client: Client,
    args: Args,
    table: Arc<ArcSwap<Table>>,
    ingresses: Informer<Value>,
    classes: Informer<Value>,
    services: Informer<Value>,
    slices: Informer<Value>,
    secrets: Informer<Value>,
    changed: Arc<Notify>,
    ready: CancellationToken,
}

impl Watcher {
    pub(crate) fn new(client: Client, args: Args, table: Arc<ArcSwap<Table>>) -> Self {
        let by_service = |slice: &Value| {
            let name = slice.label(SERVICE_NAME).unwrap_or_default();
            vec![format!("{}/{name}", slice.namespace()).into()]
        };
        let keep_ports = |service: &mut Value| {
            let ports = service.at(&["spec", "ports"]).clone();
            *service = api::object!({"metadata": (service.get("metadata")), "spec": {"ports": ports}});
        };
        Self {
            ingresses: Informer::of_values(INGRESSES, |_| {}).build(),
            classes: Informer::of_values(INGRESS_CLASSES, |_| {}).build(),
            services: Informer::of_values(SERVICES, keep_ports).build(),
            slices: Informer::of_values(ENDPOINT_SLICES, |_| {}).index("service", by_service).build(),
            secrets: Informer::of_values(SECRETS, |_| {}).fields("type=kubernetes.io/tls").build(),
            changed: Arc::new(Notify::new()),
            ready: CancellationToken::new(),
            client,
            args,
            table,
        }
    }

    /// Cancelled once the first table is there.
    pub(crate) fn ready(&self) -> CancellationToken {
        self.ready.clone()
    }

    pub(crate) fn start(self, tasks: &Tasks) {
        for (name, informer) in [
            ("ingresses", &self.ingresses),
            ("ingress classes", &self.classes),
            ("services", &self.services),
            ("endpoint slices", &self.slices),
            ("secrets", &self.secrets),
        ] {
            let changed = self.changed.clone();
            informer.on_change(move |_| changed.notify_one());
            let (informer, client, stop) = (informer.clone(), self.client.clone(), tasks.token());
            tasks.critical(name, async move {
                informer.run(client, stop).await;
                Ok(())
            });
        }
        let stop = tasks.token();
        tasks.critical("routes", async move {
            tokio::select! {
                () = self.follow() => {}
                () = stop.cancelled() => {}
            }
            Ok(())
        });
    }

    async fn follow(&self) {
        for informer in [&self.ingresses, &self.classes, &self.services, &self.slices, &self.secrets] {
            informer.synced().await;
        }
        let mut warned = HashSet::new();
        loop {
            let ingresses = self.served();
            self.table.store(Arc::new(self.build(&ingresses)));
            self.ready.cancel();
            for ingress in &ingresses {
                warn_of_unknown(ingress, &mut warned);
                if let Some(address) = self.args.publish_status_address
                    && let Err(e) = status::publish(&self.client, ingress, address).await
                {
                    tracing::warn!(ingress = ingress.name(), err = e.message(), "The status was not written");
                }
            }
            self.changed.notified().await;
            tokio::time::sleep(GATHER).await;
        }
    }

    fn build(&self, ingresses: &[Arc<Value>]) -> Table {
        Table::build(&Inputs {
            ingresses,
            service: &|namespace, name| self.services.store().find(namespace, name),
            slices: &|namespace, name| {
                self.slices.store().by_index("service", &format!("{namespace}/{name}"))
            },
            certificate: &|namespace, name| tls::certificate(&*self.secrets.store().find(namespace, name)?),
        })
    }

    /// The Ingresses of our classes, the oldest first.
    fn served(&self) -> Vec<Arc<Value>> {
        let classes = self.classes.store().list();
        let ours: HashSet<&str> = classes
            .iter()
            .filter(|c| c.str_at(&["spec", "controller"]) == self.args.controller_class)
            .map(|c| c.name())
            .collect();
        let is_ours = |ingress: &Value| match (
            ingress.at(&["spec", "ingressClassName"]).as_str(),
            ingress.annotation("kubernetes.io/ingress.class"),
        ) {
            (Some(class), _) => ours.contains(class),
            (None, Some(class)) => class == self.args.ingress_class,
            (None, None) => self.args.watch_ingress_without_class,
        };
        let mut ingresses: Vec<Arc<Value>> =
            self.ingresses.store().list().into_iter().filter(|i| is_ours(i)).collect();
        ingresses.sort_by_cached_key(|i| {
            (
                i.str_at(&["metadata", "creationTimestamp"]).to_owned(),
                i.namespace().to_owned(),
                i.name().to_owned(),
            )
        });
        ingresses
    }
}

/// Says once which annotations are not understood.
fn warn_of_unknown(ingress: &Value, warned: &mut HashSet<String>) {
    let annotations = ingress.at(&["metadata", "annotations"]).as_object();
    for (key, value) in annotations.into_iter().flat_map(|m| m.iter()) {
        let plain_protocol = key.ends_with("/backend-protocol") && !matches!(value.as_str(), Some("HTTP"));
        let unknown = key.starts_with("nginx.ingress.kubernetes.io/") && !ANNOTATIONS.contains(&key);
        let known_so_far = format!("{}/{} {key}", ingress.namespace(), ingress.name());
        if (unknown || plain_protocol) && warned.len() < 10_000 && warned.insert(known_so_far) {
            tracing::warn!(
                ingress = ingress.name(),
                namespace = ingress.namespace(),
                annotation = key,
                "Not supported, has no effect"
            );
        }
    }
}
