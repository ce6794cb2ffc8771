//! The registry that the engine's process serves beside the API: on loopback, for whoever may use the engine.
//!
//! Loopback is reached by every user of the machine, and by containers that have the host's network, root in them: so nobody is
//! let in there without the password, which lies where root alone can read it. The engine's own pulls and pushes do not go
//! that way, where others may listen: they come by a door within the process, and need none. Until somebody comes who may, the
//! registry is a listener and nothing more: its store is opened for the first one, and what it then does beside answering
//! sleeps while nothing happens in it.

use std::net::SocketAddr;
use std::os::unix::fs::DirBuilderExt;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use dozen_distribution::{Access, AllowedHosts, LazyStore, Options, Secret, StoreOptions, Watch};
use dozen_engine::{Door, Engine, Visitors};
use dozen_model::error_chain;
use tokio::net::TcpListener;

use crate::registry::chores::{Chores, collect_when_stirred};

/// Clients that may be connected at once. They are descriptors of the engine's, and everyone on the machine can have them.
const MOST_CONNECTIONS: usize = 256;
/// A client that neither sends nor takes anything for so long is let go.
const STALL: Duration = Duration::from_secs(60);
/// After something has changed, until it is looked for what nothing names any more.
const COLLECT_AFTER: Duration = Duration::from_secs(60 * 60);

/// See the module.
pub(crate) struct OwnRegistry {
    listener: TcpListener,
    visitors: Visitors,
    root: PathBuf,
    secret: Arc<Secret>,
}

impl OwnRegistry {
    /// Listens, if the settings want that, and tells the engine. What stands in the way keeps no engine from starting: the log
    /// and `info` say it.
    pub(crate) async fn open(engine: &Engine) -> Option<Self> {
        let address = engine.settings().own_registry.listen?;
        match Self::listen(address, engine.own_registry_root()).await {
            Ok((own, address, door)) => {
                tracing::info!("serving a registry on http://{address}");
                engine.set_own_registry(dozen_engine::OwnRegistry::Served { address, door });
                Some(own)
            }
            Err(why) => {
                tracing::warn!(
                    "the engine serves no registry of its own: {why}; say registry-listen otherwise, or off"
                );
                engine.set_own_registry(dozen_engine::OwnRegistry::Failed { address, why });
                None
            }
        }
    }

    async fn listen(address: SocketAddr, root: PathBuf) -> Result<(Self, SocketAddr, Door), String> {
        let failed = |error| format!("cannot listen on {address}: {error}");
        let listener = TcpListener::bind(address).await.map_err(failed)?;
        let address = listener.local_addr().map_err(failed)?;
        let directory = root.clone();
        let secret = tokio::task::spawn_blocking(move || {
            let made = std::fs::DirBuilder::new().recursive(true).mode(0o700).create(&directory);
            made.map_err(|error| format!("cannot make {}: {error}", directory.display()))?;
            Secret::open(&directory.join("password")).map_err(|error| error_chain(&error))
        });
        let secret = Arc::new(secret.await.map_err(|error| error.to_string())??);
        let (door, visitors) = Door::new();
        Ok((Self { listener, visitors, root, secret }, address, door))
    }

    /// For ever.
    pub(crate) async fn serve(self) {
        let store = LazyStore::new(&self.root, StoreOptions::default());
        let options = |access| Options {
            access,
            read_only: false,
            hosts: AllowedHosts::Any,
            stall: STALL,
            redirects: false,
            has_page: true,
            most_connections: MOST_CONNECTIONS,
            upstreams: None,
            watch: Watch::default(),
        };
        // Whoever takes all the places on loopback takes none of the engine's.
        let (others, own) = (options(Access::Secret(self.secret)), options(Access::Open));
        let serving = dozen_distribution::serve(store.clone(), others, self.listener, None, std::future::pending());
        let inside = dozen_distribution::serve_inside(store.clone(), own, self.visitors, std::future::pending());
        let beside = async {
            let opened = store.opened().await;
            let mut chores = Chores::default();
            chores.answer_owner(&opened, None, &self.root);
            chores.add(collect_when_stirred(COLLECT_AFTER, opened));
            std::future::pending::<()>().await;
        };
        tokio::join!(serving, inside, beside);
    }
}
