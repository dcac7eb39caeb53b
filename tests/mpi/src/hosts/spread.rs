//! A world spread over virtual hosts, and the laptop that steers it.

use std::path::PathBuf;

use super::{Hosts, Running};
use crate::launch::{engine_program, venv_python};
use crate::mpi::{Mpi, launcher};

/// The cluster's name.
const CLUSTER: &str = "two";

/// How a world is started.
#[derive(Clone, Debug)]
pub struct Spread<'a> {
    hosts: &'a Hosts,
    from: &'a str,
    resident: bool,
    launcher: Vec<String>,
    options: Vec<String>,
    dir: Option<PathBuf>,
    /// `NAME=VALUE`.
    environment: Vec<String>,
}

/// A world that can be steered. The laptop has its connection file.
#[derive(Debug)]
pub struct World<'a> {
    hosts: &'a Hosts,
    /// The launcher, or `serve`.
    pub launcher: Running,
}

impl<'a> Spread<'a> {
    /// Two ranks on each of `h1` and `h2`, started on `h1` over ssh.
    #[must_use]
    pub fn over(hosts: &'a Hosts) -> Self {
        Self {
            hosts,
            from: "h1",
            resident: false,
            launcher: Mpi::under_test()
                .hosts
                .iter()
                .chain(&["h1:2,h2:2", "-n", "4"])
                .map(|word| (*word).to_owned())
                .collect(),
            options: Vec::new(),
            dir: None,
            environment: Vec::new(),
        }
    }

    /// Under `ipengine-mpi serve`.
    #[must_use]
    pub fn resident(mut self) -> Self {
        self.resident = true;
        self
    }

    /// Started on this host.
    #[must_use]
    pub fn from(mut self, host: &'a str) -> Self {
        self.from = host;
        self
    }

    /// Started in this directory instead of the home directory.
    #[must_use]
    pub fn within(mut self, dir: PathBuf) -> Self {
        self.dir = Some(dir);
        self
    }

    /// With another environment variable for whoever starts it.
    #[must_use]
    pub fn env(mut self, name: &str, value: &str) -> Self {
        self.environment.push(format!("{name}={value}"));
        self
    }

    /// Other arguments for `mpiexec`, in the place of the usual ones.
    #[must_use]
    pub fn mpiexec(mut self, words: &[&str]) -> Self {
        self.launcher = words.iter().map(|word| (*word).to_owned()).collect();
        self
    }

    /// Options of whoever starts the gateway.
    #[must_use]
    pub fn options(mut self, words: &[&str]) -> Self {
        self.options = words.iter().map(|word| (*word).to_owned()).collect();
        self
    }

    /// Starts it and does not wait.
    #[must_use]
    pub fn spawn(&self) -> Running {
        let text = |text: &str| text.to_owned();
        let engine = engine_program().display().to_string();
        let mut words = vec![text("env")];
        if let Some(dir) = &self.dir {
            words.extend([text("-C"), dir.display().to_string()]);
        }
        words.extend(self.environment.iter().cloned());
        let mut place = vec![text("--cluster"), text(CLUSTER)];
        place.extend(self.options.iter().cloned());
        if self.resident {
            words.extend([engine.clone(), text("serve")]);
            words.append(&mut place);
            words.push(text("--"));
        }
        words.push(launcher());
        words.extend(self.launcher.iter().cloned());
        words.push(engine);
        words.extend(place);
        let words: Vec<&str> = words.iter().map(String::as_str).collect();
        self.hosts.spawn(self.from, &words)
    }

    /// Starts it and waits until the laptop can steer it.
    #[must_use]
    pub fn start(&self) -> World<'a> {
        let mut launcher = self.spawn();
        launcher.wait_output(&format!("{CLUSTER}.json"));
        let base = self.dir.clone().unwrap_or_else(|| self.hosts.home("h1"));
        let homes =
            [self.hosts.home("h1"), base].map(|dir| dir.join(".ipsteer").join(format!("{CLUSTER}.json")));
        let file = homes.iter().find(|file| file.exists());
        let file = file
            .expect("the connection file is where it belongs")
            .display()
            .to_string();
        self.hosts
            .run("laptop", &["scp", "-q", &format!("head:{file}"), "two.json"]);
        World {
            hosts: self.hosts,
            launcher,
        }
    }
}

impl World<'_> {
    /// Starts `ipsteer` on the laptop.
    #[must_use]
    pub fn begin(&self, words: &[&str]) -> Running {
        let all = ["ipsteer", "--connect", "two.json"];
        let all: Vec<&str> = all.iter().chain(words).copied().collect();
        self.hosts.spawn("laptop", &all)
    }

    /// Runs `ipsteer` on the laptop, which must succeed; what it prints.
    #[must_use]
    pub fn ipsteer(&self, words: &[&str]) -> String {
        self.begin(words).must()
    }

    /// Runs Python source text on the laptop, where `rc` is a client; what it prints.
    #[must_use]
    pub fn python(&self, source: &str) -> String {
        let whole = format!("import ipsteer\nrc = ipsteer.Client('two.json')\n{source}");
        let python = venv_python().display().to_string();
        self.hosts.run("laptop", &[&python, "-c", &whole])
    }

    /// Stops it in good order: the launcher succeeds and nothing is left on any host.
    ///
    /// # Panics
    /// When that is not so.
    pub fn stop(mut self) {
        let _ = self.ipsteer(&["stop"]);
        let status = self.launcher.wait();
        assert!(
            status.success(),
            "after an orderly stop the launcher returns {status}"
        );
        drop(self.launcher);
        self.hosts.wait_idle();
    }
}
