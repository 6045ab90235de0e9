//! Taking volumes away from pods. What there is to do is found on the disk.

use std::fs;
use std::path::Path;

use super::api::{Capability, Nothing, Place, UNPUBLISH, UNSTAGE};
use super::driver::Driver;
use super::files::{Data, entries, gone};
use super::mount::text;
use super::{Csi, Local};

impl Csi {
    /// Takes all volumes away from a pod; the error is a sentence. To be asked again until it succeeds.
    pub(crate) async fn unmount(&self, uid: &str) -> Result<(), String> {
        self.local.unmount(uid).await
    }
}

fn place(handle: &str, path: &Path) -> Place {
    Place { volume_id: handle.to_owned(), path: text(path), ..Place::default() }
}

impl Local {
    pub(super) async fn unmount(&self, uid: &str) -> Result<(), String> {
        let mut failed = Vec::new();
        for dir in entries(&self.layout.volumes(uid)).map_err(|error| error.to_string())? {
            if let Err(why) = self.unmount_one(uid, &dir).await {
                failed.push(format!("kubernetes.io/csi: Unmounter.TearDownAt failed: {why}"));
            }
        }
        for link in fs::read_dir(self.layout.devices(uid)).into_iter().flatten().flatten() {
            let name = link.file_name().to_string_lossy().into_owned();
            if let Err(why) = self.unmap_one(uid, &name, &link.path()).await {
                failed.push(format!("kubernetes.io/csi: blockMapper.TearDownDevice failed: {why}"));
            }
        }
        if failed.is_empty() {
            self.published.lock().retain(|(pod, _), _| pod != uid);
        }
        if failed.is_empty() { Ok(()) } else { Err(failed.join(", ")) }
    }

    async fn unmount_one(&self, uid: &str, dir: &Path) -> Result<(), String> {
        let target = dir.join("mount");
        let Some(data) = Data::load(dir).map_err(|error| error.to_string())? else {
            // Nothing was ever asked of a driver, or everything has been undone.
            return Ok(());
        };
        let _turn = self.turn(&(data.driver.clone(), data.handle.clone())).await;
        let driver = self.driver(&data.driver)?;
        self.published.lock().remove(&(uid.to_owned(), data.name.clone()));
        let question = place(&data.handle, &target);
        driver.call::<_, Nothing>(UNPUBLISH, question).await.map_err(|error| error.to_string())?;
        if data.lifecycle != "Ephemeral" {
            let others = self.layout.published().map_err(|error| error.to_string())?;
            let same = |other: &Data| other.driver == data.driver && other.handle == data.handle;
            if !others.iter().any(|(pod, other)| pod != uid && same(other)) {
                let staging = self.layout.staging(&data.driver, &data.handle);
                self.unstage(&driver, &data, &staging).await?;
            }
        }
        Data::remove(&target).map_err(|error| error.to_string())
    }

    /// Gives a volume back that no pod uses any more.
    async fn unstage(&self, driver: &Driver, data: &Data, staging: &Path) -> Result<(), String> {
        self.staged.lock().remove(&(data.driver.clone(), data.handle.clone()));
        if staging.exists() && driver.can(Capability::Stage).await.map_err(|error| error.to_string())? {
            let question = place(&data.handle, staging);
            driver.call::<_, Nothing>(UNSTAGE, question).await.map_err(|error| error.to_string())?;
            Data::remove(staging).map_err(|error| error.to_string())?;
        }
        self.let_go(&data.driver, &data.handle);
        Ok(())
    }

    async fn unmap_one(&self, uid: &str, name: &str, link: &Path) -> Result<(), String> {
        let text = |error: std::io::Error| error.to_string();
        let notes = self.layout.block_data(name);
        if let Some(data) = Data::load(&notes).map_err(text)? {
            let _turn = self.turn(&(data.driver.clone(), data.handle.clone())).await;
            let driver = self.driver(&data.driver)?;
            self.published.lock().remove(&(uid.to_owned(), data.name.clone()));
            let target = self.layout.block_target(uid, name);
            let question = place(&data.handle, &target);
            driver.call::<_, Nothing>(UNPUBLISH, question).await.map_err(|error| error.to_string())?;
            let shown = target.parent().unwrap_or(Path::new("/"));
            let last = fs::read_dir(shown).map_or(true, |mut entries| entries.next().is_none());
            if last {
                self.unstage(&driver, &data, &self.layout.block_staging(name)).await?;
                gone(fs::remove_dir(shown)).map_err(text)?;
                gone(fs::remove_dir_all(notes.parent().unwrap_or(&notes))).map_err(text)?;
            }
        }
        gone(fs::remove_file(link)).map_err(text)
    }
}
