package checkpoint

import (
	"bytes"
	"context"
	"crypto/sha1"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// standIn is a small model hub on this machine: an API that lists files, small
// files served with their git hash behind a redirect within the hub, and weights
// redirected to a second server as the hub does with large files.
type standIn struct {
	t      *testing.T
	commit string
	token  string // required, unless empty
	files  map[string][]byte
	served atomic.Int32 // large files served
	// failing makes the server answer nothing else.
	failing atomic.Bool
	// spoil answers for the server of large files.
	spoil func(w http.ResponseWriter, r *http.Request, data []byte)
	etag  string // of every small file, unless empty
	hub   *httptest.Server
}

func newStandIn(t *testing.T) *standIn {
	weights, err := os.ReadFile("testdata/golden/single/model.safetensors")
	if err != nil {
		t.Fatal(err)
	}
	config, err := os.ReadFile("testdata/golden/single/config.json")
	if err != nil {
		t.Fatal(err)
	}
	s := &standIn{t: t, commit: strings.Repeat("0a", 20), files: map[string][]byte{
		"config.json": config, weightsFile: weights, "vocab.txt": []byte("[PAD]\n"), "README.md": nil,
	}}
	s.spoil = s.serve
	large := httptest.NewServer(http.HandlerFunc(s.large))
	elsewhere := strings.Replace(large.URL, "127.0.0.1", "localhost", 1) // another host, as far as tokens go
	s.hub = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { s.small(w, r, elsewhere) }))
	t.Cleanup(large.Close)
	t.Cleanup(func() { s.hub.Close() })
	for _, name := range []string{"HF_HUB_CACHE", "HF_HUB_OFFLINE", "HF_TOKEN"} {
		t.Setenv(name, "")
	}
	t.Setenv("HF_HOME", t.TempDir())
	t.Setenv("HF_ENDPOINT", s.hub.URL)
	return s
}

func (s *standIn) small(w http.ResponseWriter, r *http.Request, large string) {
	if s.failing.Load() {
		http.Error(w, "no", http.StatusServiceUnavailable)
		return
	}
	if s.token != "" && r.Header.Get("Authorization") != "Bearer "+s.token {
		http.Error(w, "no", http.StatusUnauthorized)
		return
	}
	if revision, ok := strings.CutPrefix(r.URL.Path, "/api/models/org/name/revision/"); ok && (revision == "main" || revision == s.commit) {
		type sibling struct {
			Name string `json:"rfilename"`
		}
		var siblings []sibling
		for name := range s.files {
			siblings = append(siblings, sibling{name})
		}
		_ = json.NewEncoder(w).Encode(map[string]any{"id": "org/name", "sha": s.commit, "siblings": siblings})
		return
	}
	name, ok := strings.CutPrefix(r.URL.Path, "/org/name/resolve/"+s.commit+"/")
	if !ok {
		name, ok = strings.CutPrefix(r.URL.Path, "/api/resolve-cache/")
	} else if !strings.HasSuffix(name, ".safetensors") {
		http.Redirect(w, r, "/api/resolve-cache/"+name, http.StatusTemporaryRedirect)
		return
	}
	data, there := s.files[name]
	if !ok || !there {
		http.NotFound(w, r)
		return
	}
	w.Header().Set("X-Repo-Commit", s.commit)
	if strings.HasSuffix(name, ".safetensors") {
		w.Header().Set("X-Linked-Etag", fmt.Sprintf(`"%x"`, sha256.Sum256(data)))
		w.Header().Set("X-Linked-Size", fmt.Sprint(len(data)))
		http.Redirect(w, r, large+"/"+name+"?signed=yes", http.StatusFound)
		return
	}
	w.Header().Set("ETag", fmt.Sprintf(`"%x"`, sha1.Sum(fmt.Appendf(nil, "blob %d\x00%s", len(data), data))))
	if s.etag != "" {
		w.Header().Set("ETag", s.etag)
	}
	_, _ = w.Write(data)
}

// serve answers as a storage host does.
func (s *standIn) serve(w http.ResponseWriter, r *http.Request, data []byte) {
	http.ServeContent(w, r, "", time.Time{}, bytes.NewReader(data))
}

// repo is the model's folder in the cache.
func (s *standIn) repo(names ...string) string {
	return filepath.Join(append([]string{os.Getenv("HF_HOME"), "hub", "models--org--name"}, names...)...)
}

func (s *standIn) large(w http.ResponseWriter, r *http.Request) {
	if r.Header.Get("Authorization") != "" {
		s.t.Error("the token was sent to another host")
	}
	if r.URL.RawQuery != "signed=yes" {
		s.t.Errorf("the signature was lost: %s", r.URL)
	}
	data := s.files[strings.TrimPrefix(r.URL.Path, "/")]
	w.Header().Set("ETag", fmt.Sprintf(`"elsewhere-%d"`, len(data)))
	if r.Method == http.MethodHead {
		return
	}
	s.served.Add(1)
	s.spoil(w, r, data)
}

func (s *standIn) resolve(name string) string {
	s.t.Helper()
	dir, err := Resolve(context.Background(), name, nil)
	if err != nil {
		s.t.Fatal(err)
	}
	return dir
}

func (s *standIn) fails(name, want string) {
	s.t.Helper()
	_, err := Resolve(context.Background(), name, nil)
	if err == nil || !strings.Contains(err.Error(), want) {
		s.t.Errorf("expected an error with %q, found %v", want, err)
	}
}

func TestHubFetch(t *testing.T) {
	s := newStandIn(t)
	s.token = "secret"
	s.fails("org/name", "org/name: no such directory, and fetching it failed: the hub answers 401 Unauthorized: check name and revision, set HF_TOKEN if it is private, or give a local folder")
	t.Setenv("HF_TOKEN", "secret")
	var last, total int64
	dir, err := Resolve(context.Background(), "org/name", func(file string, done, all int64) {
		if file == weightsFile {
			last, total = done, all
		}
	})
	if err != nil {
		t.Fatal(err)
	}
	if want := filepath.Join(os.Getenv("HF_HOME"), "hub", "models--org--name", "snapshots", s.commit); dir != want {
		t.Errorf("directory %s, expected %s", dir, want)
	}
	if size := int64(len(s.files[weightsFile])); last != size || total != size {
		t.Errorf("progress ended at %d of %d, expected %d", last, total, size)
	}
	d, err := OpenDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	if len(d.Weights.Names()) == 0 || !slices.Equal(d.Carry, []string{"README.md", "vocab.txt"}) {
		t.Errorf("%d tensors, files %q", len(d.Weights.Names()), d.Carry)
	}
	if err := d.Close(); err != nil {
		t.Error(err)
	}
	// A blob is called by its hash, as Python calls it.
	blob := fmt.Sprintf("../../blobs/%x", sha256.Sum256(s.files[weightsFile]))
	if link, err := os.Readlink(filepath.Join(dir, weightsFile)); link != blob {
		t.Errorf("the weights are a link to %s (%v), expected %s", link, err, blob)
	}

	// From now on the weights are there.
	for _, name := range []string{"org/name", "org/name@main", "org/name@" + s.commit} {
		if again := s.resolve(name); again != dir {
			t.Errorf("%s gives %s", name, again)
		}
	}
	if n := s.served.Load(); n != 1 {
		t.Errorf("the weights were fetched %d times", n)
	}
	s.fails("org/name@v2", "org/name@v2: no such directory, and fetching it failed: the hub answers 404 Not Found: check name")
	s.fails("org/other", "the hub answers 404 Not Found: check name")
	s.failing.Store(true)
	s.fails("org/name", "the hub answers 503 Service Unavailable: try again, or give a local folder, or set HF_HUB_OFFLINE=1 to use the copy in the cache")
	s.hub.Close() // unreachable
	s.fails("org/other", "org/other: no such directory, and fetching it failed: the hub cannot be reached (dial tcp")
	if again := s.resolve("org/name"); again != dir {
		t.Errorf("with no hub it gives %s", again)
	}
	t.Setenv("HF_HUB_OFFLINE", "1")
	if again := s.resolve("org/name"); again != dir {
		t.Errorf("offline it gives %s", again)
	}
	s.fails("org/other", "HF_HUB_OFFLINE is set")
	if err := os.Remove(filepath.Join(dir, "config.json")); err != nil {
		t.Fatal(err)
	}
	s.fails("org/name", "config.json is missing")
}

// What belongs to a model comes along, as the repository lists it, and no other
// format's weights.
func TestHubListed(t *testing.T) {
	s := newStandIn(t)
	took := []string{
		"1_Pooling/config.json", "2_Dense/config.json", "2_Dense/model.safetensors", "3_Dense/pytorch_model.bin", "README.md", "added_tokens.json",
		"additional_chat_templates/tool.jinja", "chat_template.jinja", "config.json", "config_sentence_transformers.json", "generation_config.json",
		"merges.txt", weightsFile, "modules.json", "sentence_bert_config.json", "tokenizer.json", "tokenizer_config.json", "vocab.json", "vocab.txt",
	}
	for _, name := range took {
		if s.files[name] == nil {
			s.files[name] = []byte(name)
		}
	}
	for _, name := range []string{
		".gitattributes", "2_Dense/pytorch_model.bin", "consolidated.00.pth", "flax_model.msgpack", "model.q4.gguf", "onnx/model.onnx", "openvino/openvino_model.xml",
		"original/params.json", "pytorch_model.bin", "rust_model.ot", "runs/events", "tf_model.h5", "training_args.bin", "weights.zip",
	} {
		s.files[name] = []byte(name)
	}
	dir := s.resolve("org/name")
	var got []string
	err := filepath.WalkDir(dir, func(path string, entry fs.DirEntry, err error) error {
		if err != nil || entry.IsDir() {
			return err
		}
		name, err := filepath.Rel(dir, path)
		got = append(got, filepath.ToSlash(name))
		if data, _ := os.ReadFile(path); string(data) != string(s.files[name]) {
			t.Errorf("%s has other content than on the hub", name)
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	slices.Sort(took)
	if !slices.Equal(got, took) {
		t.Errorf("fetched\n%q, expected\n%q", got, took)
	}
	if entries, err := os.ReadDir(s.repo("blobs")); err != nil || len(entries) != len(took) {
		t.Errorf("%d blobs, expected %d (%v)", len(entries), len(took), err)
	}
}

func TestHubSharded(t *testing.T) {
	s := newStandIn(t)
	delete(s.files, weightsFile)
	s.fails("org/name", "neither model.safetensors nor")
	s.files["pytorch_model.bin"] = nil
	s.fails("org/name", "'hf download org/name --revision main --local-dir name'")
	for _, name := range []string{indexFile, "model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors"} {
		data, err := os.ReadFile(filepath.Join("testdata/golden/sharded", name))
		if err != nil {
			t.Fatal(err)
		}
		s.files[name] = data
	}
	shard := s.files["model-00002-of-00002.safetensors"]
	delete(s.files, "model-00002-of-00002.safetensors")
	s.fails("org/name", "names model-00002-of-00002.safetensors, which the repository lacks")
	s.files["model-00002-of-00002.safetensors"] = shard
	t.Setenv("HF_HUB_CACHE", t.TempDir())
	dir := s.resolve("org/name")
	if !strings.HasPrefix(dir, os.Getenv("HF_HUB_CACHE")) {
		t.Errorf("HF_HUB_CACHE is not heeded: %s", dir)
	}
	open(t, dir)
	t.Setenv("HF_HUB_OFFLINE", "true")
	s.resolve("org/name")
	if err := os.Remove(filepath.Join(dir, "model-00002-of-00002.safetensors")); err != nil {
		t.Fatal(err)
	}
	s.fails("org/name", "expected the shard model-00002-of-00002.safetensors beside it, found none")
}

// Neither a connection cut halfway nor wrong bytes leave weights behind.
func TestHubSpoiled(t *testing.T) {
	for name, c := range map[string]struct {
		spoil func(w http.ResponseWriter, r *http.Request, data []byte)
		want  string
	}{
		"cut": {func(w http.ResponseWriter, r *http.Request, data []byte) {
			w.Header().Set("Content-Length", fmt.Sprint(len(data)))
			_, _ = w.Write(data[:len(data)/2])
		}, "model.safetensors: the connection broke after "},
		"short": {func(w http.ResponseWriter, r *http.Request, data []byte) {
			_, _ = w.Write(data[:len(data)/2])
		}, "model.safetensors: the connection broke after "},
		"long": {func(w http.ResponseWriter, r *http.Request, data []byte) {
			_, _ = w.Write(append(data, 0))
		}, " bytes, found more"},
		"other": {func(w http.ResponseWriter, r *http.Request, data []byte) {
			_, _ = w.Write(make([]byte, len(data)))
		}, "expected content of hash"},
		"refused": {func(w http.ResponseWriter, r *http.Request, data []byte) {
			http.Error(w, "the signature has expired", http.StatusForbidden)
		}, "the hub answers 403 Forbidden"},
	} {
		t.Run(name, func(t *testing.T) {
			s := newStandIn(t)
			s.spoil = c.spoil
			s.fails("org/name", c.want)
			if exists(s.repo("snapshots", s.commit, weightsFile)) {
				t.Error("the spoiled weights are in the cache")
			}
			t.Setenv("HF_HUB_OFFLINE", "1")
			s.fails("org/name", "not in the cache")
			t.Setenv("HF_HUB_OFFLINE", "")
			s.spoil = s.serve
			open(t, s.resolve("org/name"))
			if part, _ := filepath.Glob(s.repo("blobs", "*.incomplete")); len(part) > 0 {
				t.Errorf("left behind %q", part)
			}
		})
	}
}

// A download goes on where a connection broke, at once and in a later run, also
// beside a server that can only begin anew.
func TestHubResume(t *testing.T) {
	for _, ranges := range []bool{true, false} {
		s := newStandIn(t)
		weights := s.files[weightsFile]
		var asked []string
		s.spoil = func(w http.ResponseWriter, r *http.Request, data []byte) {
			asked = append(asked, r.Header.Get("Range"))
			if !ranges {
				r.Header.Del("Range")
			}
			if len(asked) < 4 { // a part each time, and then all
				w = &cutWriter{w, len(data) * len(asked) / 7}
			}
			s.serve(w, r, data)
		}
		open(t, s.resolve("org/name"))
		if len(asked) != 4 || asked[0] != "" || asked[1] == "" {
			t.Errorf("ranges %t: asked for the ranges %q", ranges, asked)
		}
		if data, err := os.ReadFile(s.repo("snapshots", s.commit, weightsFile)); string(data) != string(weights) {
			t.Errorf("ranges %t: other weights (%v)", ranges, err)
		}

		// What an earlier run left, longer than the file, or of something else.
		blob := s.repo("blobs", fmt.Sprintf("%x", sha256.Sum256(weights)))
		for _, left := range [][]byte{weights[:10], append(slices.Clone(weights), 1, 2), weights} {
			if err := errors.Join(os.Remove(blob), os.WriteFile(blob+".incomplete", left, 0o600)); err != nil {
				t.Fatal(err)
			}
			open(t, s.resolve("org/name"))
		}
		if err := errors.Join(os.Remove(blob), os.WriteFile(blob+".incomplete", []byte("of something else"), 0o600)); err != nil {
			t.Fatal(err)
		}
		if ranges {
			s.fails("org/name", "expected content of hash")
		}
		open(t, s.resolve("org/name"))
	}
}

// cutWriter breaks the connection after this many bytes.
type cutWriter struct {
	http.ResponseWriter
	left int
}

func (c *cutWriter) Write(p []byte) (int, error) {
	n, err := c.ResponseWriter.Write(p[:min(len(p), c.left)])
	if c.left -= n; c.left == 0 {
		_ = http.NewResponseController(c.ResponseWriter).Flush()
		panic(http.ErrAbortHandler)
	}
	return n, err
}

// Two that want the same model do not get in each other's way.
func TestHubTogether(t *testing.T) {
	s := newStandIn(t)
	var wait sync.WaitGroup
	for range 4 {
		wait.Go(func() {
			if _, err := Resolve(context.Background(), "org/name", nil); err != nil {
				t.Error(err)
			}
		})
	}
	wait.Wait()
	if n := s.served.Load(); n != 1 {
		t.Errorf("the weights were fetched %d times", n)
	}
	open(t, s.resolve("org/name"))
}

// What was cut while no one was there to check it is found and fetched again.
func TestHubHeals(t *testing.T) {
	s := newStandIn(t)
	for name, cut := range map[string][]string{
		"org/name":             {weightsFile, "vocab.txt"},
		"org/name@" + s.commit: {weightsFile}, // fetched last: with them the others are whole
	} {
		for _, file := range cut {
			path, err := filepath.EvalSymlinks(filepath.Join(s.resolve(name), file))
			if err != nil {
				t.Fatal(err)
			}
			if err := os.Truncate(path, 3); err != nil {
				t.Fatal(err)
			}
		}
		dir := s.resolve(name)
		if data, err := os.ReadFile(filepath.Join(dir, "vocab.txt")); string(data) != "[PAD]\n" {
			t.Errorf("%s: vocab.txt is %q (%v)", name, data, err)
		}
		open(t, dir)
	}
}

func TestHubCancelled(t *testing.T) {
	s := newStandIn(t)
	ctx, cancel := context.WithCancel(context.Background())
	s.spoil = func(w http.ResponseWriter, r *http.Request, data []byte) {
		_, _ = w.Write(data[:10])
		_ = http.NewResponseController(w).Flush()
		cancel()
		<-r.Context().Done()
	}
	if _, err := Resolve(ctx, "org/name", nil); !errors.Is(err, context.Canceled) {
		t.Errorf("cancelled: %v", err)
	}
}

// What a hostile hub says stays within the cache.
func TestHubHostile(t *testing.T) {
	s := newStandIn(t)
	for _, name := range []string{"../../../outside", "/etc/outside", "1_Pooling/../../outside", `..\outside`, ""} {
		s.files[name] = nil
		s.fails("org/name", "to name files within the model, found "+strconv.Quote(name))
		delete(s.files, name)
	}
	for _, etag := range []string{`"../../../../outside"`, `"/outside"`, `".."`, `""`, `"a b"`} {
		s.etag = etag
		s.fails("org/name", "expected an ETag of letters and digits, found "+etag)
	}
	s.etag = ""
	weights := s.files[weightsFile]
	delete(s.files, weightsFile)
	for _, shard := range []string{"../outside.safetensors", "/outside.safetensors", `a\b.safetensors`, "1_Pooling/a.safetensors"} {
		s.files[indexFile] = fmt.Appendf(nil, `{"weight_map": {"a": %q}}`, shard)
		s.fails("org/name", fmt.Sprintf(`weight_map: tensor "a": expected the name of a .safetensors file in the same directory, found %q`, shard))
	}
	s.files[weightsFile] = weights
	s.commit = "../../../../outside"
	s.fails("org/name", "expected a commit of 40 hexadecimal digits")
	s.hub.Config.Handler = http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { http.Redirect(w, r, r.URL.Path+"x", http.StatusFound) })
	s.fails("org/name", "redirects more than ten times")
}

// The token stays with the hub when it redirects its list of files to another host,
// another port or another scheme.
func TestHubToken(t *testing.T) {
	s := newStandIn(t)
	t.Setenv("HF_TOKEN", "secret")
	var sent, there int
	elsewhere := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		there++
		if r.Header.Get("Authorization") != "" {
			sent++
		}
		if _, again := r.URL.Query()["again"]; !again {
			http.Redirect(w, r, "?again", http.StatusFound)
			return
		}
		http.NotFound(w, r)
	}))
	defer elsewhere.Close()
	for _, host := range []string{elsewhere.URL, strings.Replace(elsewhere.URL, "127.0.0.1", "localhost", 1)} {
		s.hub.Config.Handler = http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if r.Header.Get("Authorization") != "Bearer secret" {
				t.Error("the hub was not given the token")
			}
			http.Redirect(w, r, host+"/list", http.StatusFound)
		})
		s.fails("org/name", "404 Not Found")
	}
	if there != 4 || sent != 0 {
		t.Errorf("the token was sent %d times of %d to another host", sent, there)
	}
}

// Links in the cache that lead out of it are not followed, whatever they are called.
func TestHubLinks(t *testing.T) {
	outside := t.TempDir()
	for _, name := range []string{weightsFile, "config.json"} {
		data, err := os.ReadFile(filepath.Join("testdata/golden/single", name))
		if err == nil {
			err = os.WriteFile(filepath.Join(outside, name), data, 0o600)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	for _, name := range []string{weightsFile, "config.json", "1_Pooling", "vocab.txt"} {
		s := newStandIn(t)
		s.files["1_Pooling/config.json"] = []byte("{}")
		path := filepath.Join(s.resolve("org/name"), name)
		target := filepath.Join(outside, name)
		if name == "1_Pooling" {
			target = outside
		}
		if err := errors.Join(os.RemoveAll(path), os.Symlink(target, path)); err != nil {
			t.Fatal(err)
		}
		want := name + ": expected a link to a file in the cache, found one to "
		if name == "vocab.txt" { // which leads to nothing
			open(t, s.resolve("org/name"))
			if exists(target) {
				t.Errorf("%s was written", target)
			}
			continue
		}
		for _, revision := range []string{"org/name", "org/name@" + s.commit} {
			s.fails(revision, want)
		}
		t.Setenv("HF_HUB_OFFLINE", "1")
		s.fails("org/name", want)
	}

	// A folder of blobs elsewhere; a model's folder that is a link as a whole is one's own.
	s := newStandIn(t)
	s.resolve("org/name")
	if err := errors.Join(os.Rename(s.repo("blobs"), filepath.Join(outside, "blobs")), os.Symlink(filepath.Join(outside, "blobs"), s.repo("blobs"))); err != nil {
		t.Fatal(err)
	}
	s.fails("org/name", "expected a link to a file in the cache")
	if err := errors.Join(os.Remove(s.repo("blobs")), os.Rename(filepath.Join(outside, "blobs"), s.repo("blobs")),
		os.Rename(s.repo(), filepath.Join(outside, "model")), os.Symlink(filepath.Join(outside, "model"), s.repo())); err != nil {
		t.Fatal(err)
	}
	open(t, s.resolve("org/name"))
}

func TestResolveNames(t *testing.T) {
	t.Setenv("HF_HOME", t.TempDir())
	t.Setenv("HF_HUB_OFFLINE", "1")
	dir := t.TempDir()
	if got, err := Resolve(context.Background(), dir, nil); got != dir || err != nil {
		t.Errorf("a directory gives %s, %v", got, err)
	}
	file := filepath.Join(dir, "file")
	if err := os.WriteFile(file, nil, 0o644); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{file, "", "name", "./org/name", "/org/name", "org/name/more", "../name", "org/..", "org/name@../x", "org/name@", "or--g/name", "org/na me"} {
		if _, err := Resolve(context.Background(), name, nil); err == nil || strings.Contains(err.Error(), "OFFLINE") {
			t.Errorf("%q: %v", name, err)
		}
	}
}
