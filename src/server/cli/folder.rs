//! Which server a command is about: the one of a data folder.

use std::path::PathBuf;

use super::{Exit, fail};
use crate::control::access::{self, AccessError};
use crate::control::client::{Client, ClientError};
use crate::control::protocol::{AccountReply, AccountRequest, Reply, Request};
use crate::folder::{DataFolder, FolderError};
use crate::options::{Environment, Flags, Options};

/// The data folder of a command.
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct FolderArgs {
    /// The data folder [default: ./tern-data] [env: TERN_DATA]
    #[arg(long, value_name = "DIR")]
    data: Option<String>,
    /// A TOML file that sets options by their names [default: DIR/tern.toml if there]
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
}

impl FolderArgs {
    /// The options as a server of this folder would have them.
    pub(crate) fn options(&self) -> Result<Options, Exit> {
        let data = self.data.iter().map(|data| ("data", data.clone()));
        let flags = Flags::new(data).with_config(self.config.clone());
        let options =
            Environment::of_process().and_then(|environment| Options::load(&flags, &environment));
        options.map(|(options, _)| options).map_err(|error| fail(Exit::Usage, error))
    }

    /// Asks about accounts, of the server or without one.
    pub(crate) fn ask_accounts(&self, request: &AccountRequest) -> Result<AccountReply, Exit> {
        access::ask(&self.options()?, request).map_err(|error| match &error {
            AccessError::Folder(FolderError::InUse { .. }) => fail(Exit::InUse, error),
            AccessError::Server(_)
            | AccessError::Directory(_)
            | AccessError::Folder(_)
            | AccessError::Io(_)
            | AccessError::PortUnknown => fail(Exit::Failed, error),
        })
    }

    /// Asks the server; an error if none runs.
    pub(crate) fn ask_server(&self, request: &Request) -> Result<Reply, Exit> {
        let data = self.options()?.data;
        self.ask_running(request)?.ok_or_else(|| {
            let reason = format!("no server runs on {}; start one by `tern serve`", data.display());
            fail(Exit::Failed, reason)
        })
    }

    /// Asks the server; `None` if none runs.
    pub(crate) fn ask_running(&self, request: &Request) -> Result<Option<Reply>, Exit> {
        let data = self.options()?.data;
        if !data.is_dir() {
            return Err(fail(Exit::Failed, format!("there is no data folder {}", data.display())));
        }
        let folder = DataFolder::open(&data).map_err(|error| fail(Exit::Failed, error))?;
        match Client::connect(&folder) {
            Ok(Some(mut client)) => {
                let asked = client.ask(request);
                asked.map(Some).map_err(|error: ClientError| fail(Exit::Failed, error))
            }
            Ok(None) => Ok(None),
            Err(error) => {
                Err(fail(Exit::Failed, format!("the control socket can't be used: {error}")))
            }
        }
    }
}

/// The server answered with something else than what was asked for.
pub(crate) fn strange(reply: &impl std::fmt::Debug) -> Exit {
    fail(Exit::Failed, ClientError::Strange(format!("{reply:?}")))
}
