package report

import (
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"
)

// probe is put at the end of the page: it notes errors and, for each plot, what
// of its data shows.
const probe = `<script>
const wrong = [];
for (const plot of document.querySelectorAll("[data-plot]")) {
  const box = plot.getBoundingClientRect(), name = plot.getAttribute("aria-label") || plot.alt;
  if (box.width < 100 || box.height < 40) wrong.push(name + ": " + box.width + "x" + box.height);
  if (!(Number(plot.dataset.marks) > 0)) wrong.push(name + ": no marks");
  if (plot.tagName === "IMG" && !(plot.complete && plot.naturalWidth > 0)) wrong.push(name + ": no picture");
  if (plot.tagName === "svg") {
    const drawn = plot.querySelectorAll("circle, .line, rect").length;
    if (drawn === 0) wrong.push(name + ": empty");
    for (const mark of plot.querySelectorAll("circle, path, rect, text")) {
      const b = mark.getBBox();
      if (![b.x, b.y, b.width, b.height].every(Number.isFinite) || b.x < -2 || b.x + b.width > 364 || b.y < -2) { wrong.push(name + ": " + mark.outerHTML.slice(0, 120)); break; }
    }
  }
}
if (document.documentElement.scrollWidth > innerWidth) wrong.push("wider than the window: " + document.documentElement.scrollWidth + " > " + innerWidth);
const head = document.querySelector("#c1-cells th:nth-child(9) button"), body = document.querySelector("#c1-cells tbody");
const column = () => [...body.rows].map((r) => Number(r.cells[8].textContent));
head.click();
if (column().some((v, i, all) => i > 0 && v < all[i - 1])) wrong.push("the table does not sort");
const odd = document.querySelector("#odd"), order = () => [...odd.tBodies[0].rows].map((r) => r.textContent).join(" ");
odd.querySelector("button").click();
if (order() !== "-0.07 -0.03 2e-05 0.45 0.5 12 –") wrong.push("numbers sort as " + order());
odd.querySelector("button").click();
if (order() !== "12 0.5 0.45 2e-05 -0.03 -0.07 –") wrong.push("numbers sort back as " + order());
document.body.dataset.probed = document.querySelectorAll("[data-plot]").length;
document.body.dataset.wrong = wrong.join(" | ");
</script>`

// TestBrowser opens the page in headless Chromium, light, dark and as narrow as
// a phone: no errors on the console, every plot drawn within its bounds, nothing
// wider than the window. The screenshots stay in out/report/.
func TestBrowser(t *testing.T) {
	chromium, err := exec.LookPath("chromium")
	if err != nil {
		t.Skip("chromium is not installed")
	}
	if testing.Short() {
		t.Skip("a browser takes its time")
	}
	shots := filepath.Join("..", "out", "report")
	if err := os.MkdirAll(shots, 0o777); err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	page := samplePage(t)
	const odd = `<table id="odd"><thead><tr><th><button>n</button></th></tr></thead><tbody><tr><td>0.5</td></tr><tr><td>–</td></tr><tr><td>0.45</td></tr><tr><td>-0.03</td></tr><tr><td>12</td></tr><tr><td>2e-05</td></tr><tr><td>-0.07</td></tr></tbody></table>`
	probed := strings.NewReplacer("</main>", odd+"</main>", "</body>", probe+"</body>").Replace(page)
	for name, text := range map[string]string{"page.html": page, "probe.html": probed,
		// A window is never narrower than 500: a frame is.
		"phone.html": `<body style="margin:0"><iframe src="page.html" style="border:0;width:390px;height:6000px"></iframe>`} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o666); err != nil {
			t.Fatal(err)
		}
	}
	run := func(page string, flags ...string) (stdout, stderr string) {
		ctx, cancel := context.WithTimeout(context.Background(), 2*time.Minute)
		defer cancel()
		profile := t.TempDir()
		args := append([]string{"--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking", "--disable-component-update", "--disable-sync",
			"--hide-scrollbars", "--allow-file-access-from-files", "--enable-logging=stderr", "--user-data-dir=" + profile}, flags...)
		cmd := exec.CommandContext(ctx, chromium, append(args, "file://"+filepath.Join(dir, page))...)
		var out, log strings.Builder
		cmd.Stdout, cmd.Stderr = &out, &log
		if err := cmd.Run(); err != nil {
			t.Fatalf("%s: %v\n%.2000s", page, err, log.String())
		}
		for line := range strings.Lines(log.String()) {
			if strings.Contains(line, "CONSOLE") {
				t.Errorf("%s: %s", page, strings.TrimSpace(line))
			}
		}
		return out.String(), log.String()
	}
	dom, _ := run("probe.html", "--window-size=1280,1000", "--dump-dom")
	plots := regexp.MustCompile(`data-probed="(\d+)"`).FindStringSubmatch(dom)
	if plots == nil {
		t.Fatal("the probe did not run")
	}
	if n, _ := strconv.Atoi(plots[1]); n != strings.Count(page, "data-plot=") {
		t.Errorf("%s plots in the browser, %d on the page", plots[1], strings.Count(page, "data-plot="))
	}
	if wrong := regexp.MustCompile(`data-wrong="([^"]*)"`).FindStringSubmatch(dom); wrong == nil || wrong[1] != "" {
		t.Errorf("%.2000q", wrong)
	}
	for _, shot := range []struct{ name, page, size, scheme string }{
		{"light", "page.html", "1280,5200", "1"}, {"dark", "page.html", "1280,5200", "0"}, {"phone", "phone.html", "390,6000", "1"},
	} {
		path, err := filepath.Abs(filepath.Join(shots, shot.name+".png"))
		if err != nil {
			t.Fatal(err)
		}
		run(shot.page, "--window-size="+shot.size, "--blink-settings=preferredColorScheme="+shot.scheme, "--screenshot="+path)
		if info, err := os.Stat(path); err != nil || info.Size() < 20000 {
			t.Errorf("%s: no screenshot: %v", shot.name, err)
		}
	}
}
