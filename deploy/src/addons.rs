//! Add-ons: what runs as pods in kube-system, from the manifests of a folder.

use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, bail};

use crate::cluster::{Cluster, DNS_SERVICE, DOMAIN, KUBERNETES};

/// Applies the manifests of a folder, with the values of this cluster filled in.
pub fn apply(cluster: &Cluster, folder: &Path) -> Result<()> {
    let mut files: Vec<_> = std::fs::read_dir(folder)
        .with_context(|| format!("reading the add-ons in {}", folder.display()))?
        .filter_map(|e| e.ok().map(|e| e.path()))
        .filter(|p| p.extension().is_some_and(|e| e == "yaml"))
        .collect();
    files.sort();
    let mut all = String::new();
    for file in files {
        let text = std::fs::read_to_string(&file).with_context(|| format!("reading {}", file.display()))?;
        all.push_str("---\n");
        all.push_str(&fill(&text, cluster));
    }
    let rendered = Path::new(crate::cluster::DATA).join("addons.yaml");
    crate::files::write(&rendered, all.as_bytes(), 0o644)?;
    kubectl(&["apply", "-f", &rendered.to_string_lossy()]).map(|_| ())
}

fn fill(text: &str, cluster: &Cluster) -> String {
    let values = [
        ("@NODE_IP@", cluster.node_ip.to_string()),
        ("@NODE_NAME@", cluster.node_name.clone()),
        ("@DNS_SERVICE@", DNS_SERVICE.to_string()),
        ("@DOMAIN@", DOMAIN.to_owned()),
    ];
    values.iter().fold(text.to_owned(), |text, (from, to)| text.replace(from, to))
}

/// Runs kubectl as the administrator and returns what it printed.
pub fn kubectl(words: &[&str]) -> Result<String> {
    let output = Command::new("kubectl")
        .arg(format!("--kubeconfig={KUBERNETES}/admin.conf"))
        .args(words)
        .output()
        .context("running kubectl: is it installed?")?;
    if !output.status.success() {
        bail!("kubectl {}: {}", words.join(" "), String::from_utf8_lossy(&output.stderr).trim());
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}
