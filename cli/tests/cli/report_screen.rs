//! The page of `report` in a real browser, on a laptop's and on a phone's screen.
//!
//! The browser is `QTUNE_BROWSER`, or the first Chromium on the `PATH`; without one the test is
//! skipped and says so.

use crate::report;
use crate::support::Qtune;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

const BROWSERS: [&str; 4] = ["chromium", "chromium-browser", "google-chrome", "chrome"];

/// A screen, and what the style sheet's page colour is on it.
struct Screen {
    name: &'static str,
    width: u32,
    height: u32,
    dark: bool,
    page: [u8; 3],
    /// The colour of a winner of the `mma` family.
    winner: [u8; 3],
}

const SCREENS: [Screen; 4] = {
    let light = Screen {
        name: "laptop-light",
        width: 1280,
        height: 900,
        dark: false,
        page: [0xff, 0xff, 0xff],
        winner: [0xbc, 0x4c, 0x00],
    };
    let dark = Screen {
        name: "laptop-dark",
        dark: true,
        page: [0x0d, 0x11, 0x17],
        winner: [0xf0, 0x88, 0x3e],
        ..light
    };
    [
        Screen { name: "phone-light", width: 390, height: 844, ..light },
        Screen { name: "phone-dark", width: 390, height: 844, ..dark },
        light,
        dark,
    ]
};

fn browser() -> Option<PathBuf> {
    if let Some(named) = std::env::var_os("QTUNE_BROWSER") {
        return Some(named.into());
    }
    let path = std::env::var_os("PATH")?;
    let places = std::env::split_paths(&path);
    let found = places.flat_map(|folder| BROWSERS.map(|name| folder.join(name)));
    found.into_iter().find(|program| program.is_file())
}

/// The page in a frame as wide as the screen, since a browser's window has a least width. When it
/// is there, the title says how wide its content is.
fn frame(page: &str, screen: &Screen) -> String {
    let page = page.replace('&', "&amp;").replace('"', "&quot;");
    let Screen { width, height, .. } = screen;
    format!(
        "<!doctype html><title>not loaded</title><body style=\"margin:0\">\
         <iframe id=\"f\" style=\"border:0;width:{width}px;height:{height}px\" srcdoc=\"{page}\">\
         </iframe><script>f.onload = () => document.title =\
         'width ' + f.contentDocument.documentElement.scrollWidth</script>"
    )
}

/// Runs the browser on `page` with one more option; returns what it printed.
fn show(browser: &Path, page: &Path, screen: &Screen, option: &str) -> String {
    let profile = tempfile::tempdir().unwrap();
    let theme = if screen.dark { "0" } else { "1" };
    let ended = Command::new(browser)
        .args(["--headless", "--no-sandbox", "--disable-gpu", "--hide-scrollbars"])
        .args(["--no-first-run", "--disable-background-networking", "--disable-sync"])
        .arg(format!("--user-data-dir={}", profile.path().display()))
        .arg(format!("--window-size={},{}", screen.width.max(600), screen.height))
        .arg(format!("--blink-settings=preferredColorScheme={theme}"))
        .arg(option)
        .arg(format!("file://{}", page.display()))
        .output()
        .unwrap();
    assert!(ended.status.success(), "{}", String::from_utf8_lossy(&ended.stderr));
    String::from_utf8_lossy(&ended.stdout).into_owned()
}

/// The pixels of a PNG file: width and colours.
fn pixels(path: &Path) -> (usize, Vec<[u8; 3]>) {
    let decoder = png::Decoder::new(std::io::BufReader::new(fs::File::open(path).unwrap()));
    let mut reader = decoder.read_info().unwrap();
    let mut bytes = vec![0; reader.output_buffer_size().unwrap()];
    let info = reader.next_frame(&mut bytes).unwrap();
    let each = info.color_type.samples();
    let colours = bytes[..info.buffer_size()].chunks_exact(each).map(|p| [p[0], p[1], p[2]]);
    (info.width as usize, colours.collect())
}

fn looks_right_on(screen: &Screen, browser: &Path, folder: &Path, page: &str) {
    let framed = folder.join(format!("{}.html", screen.name));
    fs::write(&framed, frame(page, screen)).unwrap();
    let dom = show(browser, &framed, screen, "--dump-dom");
    let width = format!("<title>width {}</title>", screen.width);
    let title = || dom.split("</title>").next().unwrap_or_default();
    assert!(dom.contains(&width), "{}: wider than its screen: {}", screen.name, title());

    let shot = folder.join(format!("{}.png", screen.name));
    show(browser, &framed, screen, &format!("--screenshot={}", shot.display()));
    let (width, colours) = pixels(&shot);
    let (right, bottom) = (screen.width as usize - 3, screen.height as usize - 3);
    for (x, y) in [(2, 2), (right, 2), (2, bottom)] {
        assert_eq!(colours[y * width + x], screen.page, "{}: at {x}, {y}", screen.name);
    }
    let of_winner = colours.iter().filter(|colour| **colour == screen.winner).count();
    assert!(of_winner > 20, "{}: {of_winner} pixels of the winner's dot", screen.name);
}

#[test]
fn the_page_fits_a_laptop_and_a_phone_in_light_and_dark() {
    let Some(browser) = browser() else {
        println!("skipped: no browser; set QTUNE_BROWSER or install one of {BROWSERS:?}");
        return;
    };
    let qtune = Qtune::new();
    let folder = qtune.cache.path();
    let at = |name: &str| folder.join(name).to_str().unwrap().to_owned();
    report::log(Path::new(&at("trials.jsonl")));
    qtune.ok(&["report", &at("trials.jsonl"), "--out", &at("page.html")]);
    let page = fs::read_to_string(at("page.html")).unwrap();
    for screen in &SCREENS {
        looks_right_on(screen, &browser, folder, &page);
    }
}
