//! A real browser on a machine: Debian's Chromium, by its driver (W3C, "WebDriver").

use std::io::{BufRead, BufReader, Read, Write};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::{Child, Stdio};

use dozen_testbox::{Machine, Side, until};
use serde_json::{Value, json};

const DRIVER: &str = "127.0.0.1:9515";
/// By which the protocol calls an element ("Elements").
const ELEMENT: &str = "element-6066-11e4-a52e-4f735466cecf";

/// Keys without a letter ("Keyboard actions").
pub const ESCAPE: &str = "\u{e00c}";
pub const DOWN: &str = "\u{e015}";
pub const ENTER: &str = "\u{e007}";

pub struct Browser<'a> {
    machine: &'a Machine,
    driver: Child,
    session: String,
    profile: PathBuf,
}

impl<'a> Browser<'a> {
    pub fn start(machine: &'a Machine) -> Self {
        let driver = machine
            .command("chromedriver")
            .args(["--port=9515", "--allowed-ips=127.0.0.1"])
            .env("HOME", machine.directory())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let profile = machine.directory().join("profile");
        let mut browser = Self { machine, driver, session: String::new(), profile };
        let address: SocketAddr = DRIVER.parse().unwrap();
        until("the browser's driver listens", || machine.connect(Side::Machine, address).ok());
        let arguments = [
            "--headless",
            "--no-sandbox",
            "--disable-gpu",
            "--disable-quic",
            "--no-first-run",
            "--disable-background-networking",
            "--disable-component-update",
            "--disable-sync",
            "--disable-dev-shm-usage",
            "--window-size=1100,900",
        ];
        let mut arguments: Vec<_> = arguments.map(str::to_owned).into();
        arguments.push(format!("--user-data-dir={}", browser.profile.display()));
        let wanted = json!({ "capabilities": { "alwaysMatch": {
            "goog:chromeOptions": { "args": arguments },
            "goog:loggingPrefs": { "browser": "ALL" },
            "unhandledPromptBehavior": "ignore",
        } } });
        let session = browser.ask("POST", "/session", Some(&wanted));
        browser.session = format!("/session/{}", session["sessionId"].as_str().unwrap());
        browser
    }

    fn ask(&self, method: &str, path: &str, body: Option<&Value>) -> Value {
        self.try_ask(method, path, body).unwrap_or_else(|error| panic!("{method} {path}: {error}"))
    }

    /// What the driver answers, or the error that it says.
    fn try_ask(&self, method: &str, path: &str, body: Option<&Value>) -> Result<Value, Value> {
        let mut stream = self.machine.connect(Side::Machine, DRIVER.parse().unwrap()).unwrap();
        let body = body.map(Value::to_string).unwrap_or_default();
        let head = format!(
            "{method} {path} HTTP/1.1\r\nHost: {DRIVER}\r\nConnection: close\r\n\
             Content-Type: application/json\r\nContent-Length: {}\r\n\r\n",
            body.len()
        );
        stream.write_all((head + &body).as_bytes()).unwrap();
        let mut answer = BufReader::new(stream);
        let mut line = || {
            let mut line = String::new();
            answer.read_line(&mut line).unwrap();
            line.trim_end().to_ascii_lowercase()
        };
        let (status, mut length) = (line(), 0);
        loop {
            let field = line();
            if let Some(told) = field.strip_prefix("content-length:") {
                length = told.trim().parse().unwrap();
            }
            if field.is_empty() {
                break;
            }
        }
        // It keeps the connection, whatever it was told.
        let mut text = vec![0; length];
        answer.read_exact(&mut text).unwrap();
        let value: Value = serde_json::from_slice(&text).unwrap();
        if status.contains(" 200 ") { Ok(value["value"].clone()) } else { Err(value["value"]["message"].clone()) }
    }

    fn of_session(&self, method: &str, path: &str, body: Option<&Value>) -> Value {
        self.ask(method, &format!("{}{path}", self.session), body)
    }

    pub fn go(&self, address: &str) {
        self.of_session("POST", "/url", Some(&json!({ "url": address })));
    }

    pub fn title(&self) -> String {
        self.of_session("GET", "/title", None).as_str().unwrap().to_owned()
    }

    /// What a piece of JavaScript returns, run beside the page.
    pub fn run(&self, script: &str) -> Value {
        self.of_session("POST", "/execute/sync", Some(&json!({ "script": script, "args": [] })))
    }

    /// What a person reads.
    pub fn text(&self) -> String {
        self.run("return document.body.innerText").as_str().unwrap().to_owned()
    }

    /// Waits until a person reads these words.
    pub fn reads(&self, words: &str) {
        until(&format!("the page says {words:?}"), || self.text().contains(words).then_some(()));
    }

    fn element(&self, selector: &str) -> String {
        let wanted = json!({ "using": "css selector", "value": selector });
        let found = until(&format!("{selector} is there"), || {
            self.try_ask("POST", &format!("{}/element", self.session), Some(&wanted)).ok()
        });
        found[ELEMENT].as_str().unwrap().to_owned()
    }

    pub fn click(&self, selector: &str) {
        let element = self.element(selector);
        self.of_session("POST", &format!("/element/{element}/click"), Some(&json!({})));
    }

    pub fn write(&self, selector: &str, text: &str) {
        let element = self.element(selector);
        self.of_session("POST", &format!("/element/{element}/clear"), Some(&json!({})));
        self.of_session("POST", &format!("/element/{element}/value"), Some(&json!({ "text": text })));
    }

    /// Presses a key, wherever the focus is.
    pub fn press(&self, key: &str) {
        let actions = json!([{ "type": "keyDown", "value": key }, { "type": "keyUp", "value": key }]);
        let keyboard = json!({ "actions": [{ "type": "key", "id": "keyboard", "actions": actions }] });
        self.of_session("POST", "/actions", Some(&keyboard));
    }

    pub fn resize(&self, width: u32, height: u32) {
        self.of_session("POST", "/window/rect", Some(&json!({ "width": width, "height": height })));
    }

    /// Whether the page has asked something in a window of its own (`alert`).
    pub fn has_alert(&self) -> bool {
        self.try_ask("GET", &format!("{}/alert/text", self.session), None).is_ok()
    }

    /// What the browser has complained of since it was last asked.
    pub fn complaints(&self) -> Vec<String> {
        let log = self.of_session("POST", "/se/log", Some(&json!({ "type": "browser" })));
        let all = log.as_array().unwrap().iter();
        all.map(|entry| entry["message"].as_str().unwrap().to_owned()).collect()
    }
}

impl Drop for Browser<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() && !self.session.is_empty() {
            eprintln!("-- the page\n{:?}", self.try_ask("GET", &format!("{}/source", self.session), None));
        }
        // The driver ends its browser with the session.
        if !self.session.is_empty() {
            let _ = self.try_ask("DELETE", &self.session, None);
        }
        let _ = self.driver.kill();
        let _ = self.driver.wait();
    }
}
