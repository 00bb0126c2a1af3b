package checkpoint

import (
	"context"
	"crypto/sha1"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"hash"
	"io"
	"io/fs"
	"maps"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/gomlx/go-huggingface/hub"

	"mlpfusion/internal/disk"
)

// Progress is told how far the download of a file has come; total is 0 when
// the server does not say.
type Progress func(file string, done, total int64)

var (
	hubName    = regexp.MustCompile(`^([\w][\w.-]*/[\w][\w.-]*)(?:@([\w][\w./-]*))?$`)
	commitHash = regexp.MustCompile(`^[0-9a-f]{40}$`)
)

// Resolve returns the local directory of a model. A directory is returned as
// it is. "org/name" or "org/name@revision" is fetched from the hub to its
// standard cache, which it shares with Python; a revision that is there whole
// is not fetched again, and if the hub cannot be reached the cached one is
// used.
//
// Environment: HF_HOME, HF_HUB_CACHE, HF_HUB_OFFLINE (only the cache is read),
// HF_TOKEN, HF_ENDPOINT. progress may be nil.
func Resolve(ctx context.Context, nameOrPath string, progress Progress) (string, error) {
	info, err := os.Stat(nameOrPath)
	if err == nil {
		if !info.IsDir() && !isGGUF(nameOrPath) {
			return "", fmt.Errorf("%s: expected a model directory, found a file that is not .gguf either", nameOrPath)
		}
		return nameOrPath, nil
	}
	parts := hubName.FindStringSubmatch(nameOrPath)
	if parts == nil || strings.Contains(nameOrPath, "..") || strings.Contains(nameOrPath, "--") {
		return "", fmt.Errorf("%s: no such directory, and no hub name (org/name or org/name@revision) either", nameOrPath)
	}
	m := hubModel{name: parts[1], revision: parts[2]}
	if m.revision == "" {
		m.revision = "main"
	}
	if m.cache, err = hubCache(); err != nil {
		return "", err
	}
	cached, missing := m.cached()
	if offline() || missing == nil && commitHash.MatchString(m.revision) {
		if missing != nil {
			return "", fmt.Errorf("%s: no such directory, and HF_HUB_OFFLINE is set: %w", nameOrPath, missing)
		}
		return cached, nil
	}
	dir, err := m.fetch(ctx, progress)
	if err == nil {
		return dir, nil
	}
	if ctx.Err() != nil {
		return "", ctx.Err()
	}
	var unreachable *url.Error
	reachable := !errors.As(err, &unreachable)
	if missing == nil && !reachable {
		return cached, nil
	}
	advice := "try again, or give a local folder"
	var status statusError
	switch {
	case errors.As(err, &status) && status.hidden():
		advice = "check name and revision, set HF_TOKEN if it is private, or give a local folder"
	case !reachable:
		err = fmt.Errorf("the hub cannot be reached (%w)", unreachable.Err)
	}
	if missing == nil {
		advice += ", or set HF_HUB_OFFLINE=1 to use the copy in the cache"
	}
	return "", fmt.Errorf("%s: no such directory, and fetching it failed: %w: %s", nameOrPath, err, advice)
}

// statusError is the hub's answer that is no success.
type statusError int

func (s statusError) Error() string {
	return strings.TrimSpace(fmt.Sprintf("the hub answers %d %s", int(s), http.StatusText(int(s))))
}

// hidden tells that what was asked for is not there or not for everyone, which
// the hub does not tell apart.
func (s statusError) hidden() bool {
	return s == http.StatusUnauthorized || s == http.StatusForbidden || s == http.StatusNotFound
}

var badStatus = regexp.MustCompile(`bad status code (\d{3})`)

// cause is what is behind an error of the library, which tells of each of its
// calls: the hub's answer, or the innermost error.
func cause(err error) error {
	if found := badStatus.FindStringSubmatch(err.Error()); found != nil {
		code, _ := strconv.Atoi(found[1]) // three digits
		return statusError(code)
	}
	var unreachable *url.Error
	var file *fs.PathError
	switch {
	case errors.As(err, &unreachable):
		return unreachable
	case errors.As(err, &file):
		return file
	}
	for inner := err; inner != nil; inner = errors.Unwrap(inner) {
		err = inner
	}
	return err
}

func offline() bool {
	switch strings.ToUpper(os.Getenv("HF_HUB_OFFLINE")) {
	case "1", "TRUE", "YES", "ON":
		return true
	}
	return false
}

// hubCache is the cache's directory by the rules of Python's huggingface_hub.
func hubCache() (string, error) {
	dir, below := os.Getenv("HF_HUB_CACHE"), ""
	if dir == "" {
		dir, below = os.Getenv("HF_HOME"), "hub"
	}
	if dir == "" {
		dir, below = os.Getenv("XDG_CACHE_HOME"), "huggingface/hub"
	}
	if dir == "" {
		dir, below = "~", ".cache/huggingface/hub"
	}
	if rest, ok := strings.CutPrefix(dir, "~"); ok && (rest == "" || rest[0] == '/') {
		home, err := os.UserHomeDir()
		if err != nil {
			return "", err
		}
		dir = home + rest
	}
	return filepath.Abs(filepath.Join(dir, below))
}

// hubModel is one revision of a model on the hub, and its place in the cache.
type hubModel struct {
	name, revision, cache string
}

// dir is the model's directory in the cache: blobs/, refs/ and snapshots/.
func (m hubModel) dir() string {
	return filepath.Join(m.cache, "models--"+strings.ReplaceAll(m.name, "/", "--"))
}

func (m hubModel) ref() string { return filepath.Join(m.dir(), "refs", m.revision) }

// cached returns the revision's snapshot, or what is missing of it.
func (m hubModel) cached() (dir string, missing error) {
	commit := m.revision
	if !commitHash.MatchString(commit) {
		data, err := readSmallFile(m.ref())
		if err != nil {
			return "", fmt.Errorf("revision %s of %s is not in the cache %s", m.revision, m.name, m.cache)
		}
		commit = strings.TrimSpace(string(data))
		if !commitHash.MatchString(commit) {
			return "", fmt.Errorf("%s: expected a commit of 40 hexadecimal digits, found %q", m.ref(), shown(data))
		}
	}
	dir = filepath.Join(m.dir(), "snapshots", commit)
	if !exists(configPath(dir)) {
		return "", fmt.Errorf("revision %s of %s is not whole in the cache: config.json is missing in %s", m.revision, m.name, dir)
	}
	weights, err := Open(dir) // also finds a file that was cut short
	if err != nil {
		return "", fmt.Errorf("revision %s of %s is not whole in the cache: %w", m.revision, m.name, err)
	}
	return dir, weights.Close()
}

// shardFiles returns the files that an index names, sorted.
func shardFiles(index string) ([]string, error) {
	weightMap, err := readIndex(index)
	if err != nil {
		return nil, err
	}
	return slices.Compact(slices.Sorted(maps.Values(weightMap))), nil
}

// fetch brings the revision into the cache: the small files first and the
// weights last, so that a snapshot with weights is whole, then the reference
// from the revision to its commit.
//
// The library downloads each file under a temporary name and renames it. It
// knows HF_ENDPOINT of the environment; the rest is set here.
func (m hubModel) fetch(ctx context.Context, progress Progress) (string, error) {
	repo := hub.New(m.name).WithRevision(m.revision).WithCacheDir(m.cache).WithAuth(os.Getenv("HF_TOKEN"))
	repo.Verbosity = 0 // it would print to standard output
	if err := waitFor(ctx, func() error { return repo.DownloadInfo(true) }, nil); err != nil {
		return "", cause(err)
	}
	commit := repo.Info().CommitHash
	if !commitHash.MatchString(commit) {
		return "", fmt.Errorf("expected a commit of 40 hexadecimal digits, found %q", commit)
	}
	get := func(names ...string) error {
		for _, name := range names {
			if !repo.HasFile(name) {
				return fmt.Errorf("the repository has no %s", name)
			}
			if err := m.download(ctx, repo, filepath.Join("snapshots", commit, name), progress); err != nil {
				return fmt.Errorf("%s: %w", name, err)
			}
		}
		return nil
	}
	dir := filepath.Join(m.dir(), "snapshots", commit)
	small := []string{"config.json"}
	for _, name := range carried {
		if repo.HasFile(name) {
			small = append(small, name)
		}
	}
	weights := []string{weightsFile}
	if !repo.HasFile(weightsFile) {
		if !repo.HasFile(indexFile) {
			return "", fmt.Errorf("the repository has neither %s nor %s: convert it once in Python with from_pretrained and save_pretrained", weightsFile, indexFile)
		}
		if err := get(indexFile); err != nil {
			return "", err
		}
		var err error
		if weights, err = shardFiles(filepath.Join(dir, indexFile)); err != nil {
			return "", err
		}
	}
	if err := get(append(small, weights...)...); err != nil {
		return "", err
	}
	if !commitHash.MatchString(m.revision) {
		if err := disk.MkdirAll(filepath.Dir(m.ref())); err != nil {
			return "", err
		}
		if err := WriteFileAtomic(m.ref(), []byte(commit)); err != nil {
			return "", err
		}
	}
	return dir, nil
}

// download brings one file into the cache and checks it against the hash that
// the hub names it by, or against its size if it is there already. A file that
// fails is removed. (The library, v0.3.1, takes a connection that broke for
// the end of the file.)
func (m hubModel) download(ctx context.Context, repo *hub.Repo, file string, progress Progress) error {
	path := filepath.Join(m.dir(), file)
	name := filepath.Base(file)
	address, err := repo.FileURL(name)
	if err != nil {
		return cause(err)
	}
	etag, total, err := fileHead(ctx, address)
	if err != nil {
		return err
	}
	if info, err := os.Stat(path); err == nil {
		if info.Size() == total || total == 0 {
			return nil
		}
		if err := removeCached(path); err != nil {
			return err
		}
	}
	err = waitFor(ctx, func() error {
		_, err := repo.DownloadFile(name)
		return err
	}, func() {
		if progress != nil {
			progress(name, downloading(m.dir()), total)
		}
	})
	if err != nil {
		return cause(err)
	}
	if err := checkHash(path, etag, total); err != nil {
		return errors.Join(err, removeCached(path))
	}
	if info, err := os.Stat(path); err == nil && progress != nil {
		progress(name, info.Size(), info.Size())
	}
	return nil
}

// removeCached removes a file of a snapshot and the blob that it links to.
func removeCached(path string) error {
	if blob, err := filepath.EvalSymlinks(path); err == nil {
		if err := disk.Remove(blob); err != nil {
			return err
		}
	}
	if err := disk.Remove(path); !errors.Is(err, fs.ErrNotExist) { // it was no link
		return err
	}
	return nil
}

// waitFor runs a call of the library, which cannot be interrupted, until it or
// the context ends; meanwhile tick, if any, runs ten times a second. A call
// given up on goes on in the background, and leaves no half file either.
func waitFor(ctx context.Context, call func() error, tick func()) error {
	done := make(chan error, 1)
	go func() { done <- call() }()
	ticker := time.NewTicker(100 * time.Millisecond)
	defer ticker.Stop()
	for {
		select {
		case err := <-done:
			return err
		case <-ctx.Done():
			return ctx.Err()
		case <-ticker.C:
			if tick != nil {
				tick()
			}
		}
	}
}

// downloading is the size of the file that the library is downloading.
func downloading(dir string) (size int64) {
	parts, _ := filepath.Glob(filepath.Join(dir, "blobs", "*.downloading"))
	for _, part := range parts {
		if info, err := os.Stat(part); err == nil {
			size = max(size, info.Size())
		}
	}
	return size
}

// fileHead asks the hub for a file's hash and size. Large files are
// redirected to another host, whose answer no longer has the hash: the
// redirect itself says it, so it is not followed.
func fileHead(ctx context.Context, address string) (etag string, size int64, err error) {
	request, err := http.NewRequestWithContext(ctx, http.MethodHead, address, nil)
	if err != nil {
		return "", 0, err
	}
	request.Header.Set("Accept-Encoding", "identity")
	if token := os.Getenv("HF_TOKEN"); token != "" {
		request.Header.Set("Authorization", "Bearer "+token)
	}
	client := http.Client{CheckRedirect: func(next *http.Request, via []*http.Request) error {
		if next.Response.Header.Get(hub.HeaderXLinkedETag) != "" || next.URL.Host != via[0].URL.Host || len(via) > 9 {
			return http.ErrUseLastResponse
		}
		return nil
	}}
	response, err := client.Do(request)
	if err != nil {
		return "", 0, err
	}
	_ = response.Body.Close() // a HEAD has none
	if response.StatusCode >= 400 {
		return "", 0, statusError(response.StatusCode)
	}
	header := response.Header
	if etag = header.Get(hub.HeaderXLinkedETag); etag == "" {
		etag = header.Get("ETag")
	}
	etag = strings.Trim(strings.TrimPrefix(etag, "W/"), `"`)
	if size, err = strconv.ParseInt(header.Get(hub.HeaderXLinkedSize), 10, 64); err != nil {
		size = 0
		if response.StatusCode == http.StatusOK {
			size = max(0, response.ContentLength)
		}
	}
	return etag, size, nil
}

// checkHash compares a file with its ETag on the hub: the SHA-256 of a large
// file, the git blob hash of a small one; servers with other tags are believed
// by the size alone.
func checkHash(path, etag string, size int64) error {
	f, err := disk.Open(path)
	if err != nil {
		return err
	}
	defer func() { _ = f.Close() }() // only read
	info, err := f.Stat()
	if err != nil {
		return err
	}
	if size > 0 && info.Size() != size {
		return fmt.Errorf("expected %d bytes, found %d", size, info.Size())
	}
	var sum hash.Hash
	switch {
	case len(etag) == 64:
		sum = sha256.New()
	case len(etag) == 40:
		sum = sha1.New()
		_, _ = fmt.Fprintf(sum, "blob %d\x00", info.Size()) // a hash takes all
	default:
		return nil
	}
	if _, err := io.Copy(sum, f); err != nil {
		return err
	}
	if found := hex.EncodeToString(sum.Sum(nil)); found != etag {
		return fmt.Errorf("expected content of hash %s, found %s", etag, found)
	}
	return nil
}
