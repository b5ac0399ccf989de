# shellcheck shell=bash
# Images: the droplet's, the services' and the applications' base images, all from Debian's packages.

# The classic builder: the engine of Debian 12 needs nothing else, and a newer client on the PATH understands it too.
build() {
  local tag=$1 context=$2
  shift 2
  say "building $tag"
  quietly "building $tag" env DOCKER_BUILDKIT=0 docker build --network host --label "$LABEL=image" --force-rm -t "$tag" \
    "$@" "$context"
}

image_exists() { docker image inspect "$1" >/dev/null 2>&1; }

# debian_mirror: where this machine gets Debian from.
debian_mirror() {
  local uri
  uri=$(find /etc/apt -maxdepth 2 -name '*.list' -o -name '*.sources' | sort \
    | xargs -r sed -n -e 's|^URIs: *\(http[^ ]*/debian\)/\{0,1\}$|\1|p' -e 's|^deb .*\(http[^ ]*/debian\)/\{0,1\} .*|\1|p' \
    | sed -n 1p)
  printf '%s\n' "${uri:-http://deb.debian.org/debian}"
}

# images_base [SUITE]: Debian from the machine's own mirror, kept as a tar beside the engine's data.
images_base() {
  local suite=${1:-trixie}
  local tag=orchestrate-sandbox/debian:$suite tar=$STATE/cache/debian-$suite.tar tree mirror
  image_exists "$tag" && return 0
  if [ ! -s "$tar" ]; then
    mkdir -p "$STATE/cache"
    tree=$STATE/cache/debian-$suite.tree
    mirror=$(debian_mirror)
    rm -rf "$tree"
    say "debootstrap $suite from $mirror"
    quietly debootstrap debootstrap --variant=minbase --include=ca-certificates "$suite" "$tree" "$mirror"
    {
      printf 'deb %s %s main\n' "$mirror" "$suite"
      printf 'deb %s %s-updates main\n' "$mirror" "$suite"
      printf 'deb %s-security %s-security main\n' "$mirror" "$suite"
    } >"$tree/etc/apt/sources.list"
    printf 'APT::Install-Recommends "false";\nAcquire::Languages "none";\n' >"$tree/etc/apt/apt.conf.d/90sandbox"
    # Images are made again, not repaired: no fsync per file, no manuals (the droplet's image drops this file).
    {
      printf 'force-unsafe-io\n'
      printf 'path-exclude=%s\n' '/usr/share/doc/*' '/usr/share/man/*' '/usr/share/info/*' '/usr/share/locale/*'
      printf 'path-include=/usr/share/doc/*/copyright\n'
    } >"$tree/etc/dpkg/dpkg.cfg.d/sandbox"
    rm -rf "$tree"/usr/share/man/* "$tree"/usr/share/locale/* "$tree"/usr/share/info/*
    rm -rf "$tree"/var/cache/apt/archives/*.deb "$tree"/var/lib/apt/lists/* "$tree"/var/log/*.log
    tar -C "$tree" -cf "$tar.part" .
    rm -rf "$tree"
    mv "$tar.part" "$tar"
  fi
  quietly "importing Debian" docker import --change 'CMD ["bash"]' "$tar" "$tag"
}

# image_current TAG NAME PATH...: whether TAG was built from what lies below the paths now (recorded in the state).
image_current() {
  local tag=$1
  shift
  image_exists "$tag" && [ "$(docker image inspect --format "{{index .Config.Labels \"$LABEL.source\"}}" "$tag")" = "$(tree_hash "$@")" ]
}

# image_from TAG CONTEXT PATH...: builds TAG from CONTEXT unless it was built from the same files. Only `up` and `images`
# replace an image: several clones share the sandbox, and a droplet of an older one must not undo a newer one's work.
image_from() {
  local tag=$1 context=$2
  shift 2
  if [ -z "${REPLACE:-}" ] && image_exists "$tag"; then return 0; fi
  image_current "$tag" "$context" "$@" || build "$tag" "$context" --label "$LABEL.source=$(tree_hash "$context" "$@")"
}

images_core() {
  local droplet=$ROOT/sandbox/droplet
  images_base
  image_from orchestrate-sandbox/droplet-fresh:latest "$droplet/fresh"
  image_from orchestrate-sandbox/droplet:latest "$droplet/docker" "$droplet/fresh"
  image_from orchestrate-sandbox/services:latest "$ROOT/sandbox/services" "$ROOT/sandbox/delay-proxy"
}

# What few tests want is made when somebody asks for it: a fresh Debian 12, and Docker's packages for it.
images_debian12() {
  local tag=orchestrate-sandbox/droplet-fresh:12 context=$ROOT/sandbox/droplet/fresh
  images_base bookworm
  image_current "$tag" "$context" \
    || build "$tag" "$context" --label "$LABEL.source=$(tree_hash "$context")" --build-arg SUITE=bookworm
}

images_packages() {
  local tag=orchestrate-sandbox/packages:latest context=$ROOT/sandbox/packages
  image_current "$tag" "$context" || build "$tag" "$context" --label "$LABEL.source=$(tree_hash "$context")"
}

# push LOCAL TAG...: LOCAL to the registry, under each TAG (library/postgres:17). 127.0.0.0/8 needs no certificate for the
# engine, so that its configuration stays as it is; droplets pull under the registry's own name, with its certificate.
push() {
  local local_tag=$1 registry tag
  registry=127.0.0.1:$(cat "$STATE/registry.port")
  shift
  for tag in "$@"; do
    docker tag "$local_tag" "$registry/$tag"
    quietly "pushing $tag" docker --config "$STATE/registry/client" push --quiet "$registry/$tag"
    docker rmi "$registry/$tag" >/dev/null
  done
}

registry_login() {
  [ -s "$STATE/registry/client/config.json" ] && return 0
  quietly "logging in to the registry" docker --config "$STATE/registry/client" login --username deploy --password-stdin \
    "127.0.0.1:$(cat "$STATE/registry.port")" <"$STATE/registry/password"
}

# image_version TAG: what /image-version in the image says (its Dockerfile writes the packages' version there).
image_version() { docker run --rm --network none --entrypoint cat "$1" /image-version; }

# images_base_applications: sandbox/images/NAME becomes registry.test:5000/library/NAME, tagged by the content of its file
# `tag` (17) and by its exact version (17.6).
images_base_applications() {
  local context name tag local_tag pushed
  registry_login
  image_from orchestrate-sandbox/machine:latest "$(machine_context)"
  for context in "$ROOT"/sandbox/images/*/; do
    name=$(basename "$context")
    tag=$(cat "$context/tag")
    local_tag=$REGISTRY_NAME/library/$name:$tag
    pushed=$STATE/registry/data/pushed-$name
    image_from "$local_tag" "${context%/}"
    if [ "$(cat "$pushed" 2>/dev/null || :)" != "$(docker image inspect --format '{{.Id}}' "$local_tag")" ]; then
      push "$local_tag" "library/$name:$tag" "library/$name:$(image_version "$local_tag")"
      docker image inspect --format '{{.Id}}' "$local_tag" | write_file "$pushed" 644
    fi
  done
}

# machine_context: how this machine reaches PyPI, as a context for builds: certificates and, if there is one, pip.conf.
# A Dockerfile takes it with COPY --from=orchestrate-sandbox/machine in a stage that is thrown away.
machine_context() {
  local context=$STATE/cache/machine
  mkdir -p "$context"
  cp -L /etc/ssl/certs/ca-certificates.crt "$context/ca-certificates.crt"
  {
    printf '[global]\n'
    [ -z "${PIP_INDEX_URL:-}" ] || printf 'index-url = %s\n' "$PIP_INDEX_URL"
    printf 'cert = /machine/ca-certificates.crt\n'
  } >"$context/pip.conf"
  printf 'FROM scratch\nCOPY ca-certificates.crt pip.conf /machine/\n' >"$context/Dockerfile"
  printf '%s\n' "$context"
}

# applications_stamp: changes with whatever the applications' images are made of.
applications_stamp() {
  docker image inspect --format '{{.Id}}' "$REGISTRY_NAME/library/python:$(cat "$ROOT/sandbox/images/python/tag")"
  tree_hash "$ROOT/sandbox/build-images" "$ROOT/examples"
}

# images_build: the base images, then the applications' (sandbox/build-images, which gets DOCKER_HOST and the registry).
images_build() {
  with_lock images images_build_locked
}

images_build_locked() {
  local built=$STATE/registry/data/built-applications
  images_base_applications
  [ -x "$ROOT/sandbox/build-images" ] || return 0
  [ "$(cat "$built" 2>/dev/null || :)" != "$(applications_stamp)" ] || return 0
  say "building the applications' images"
  DOCKER_BUILDKIT=0 DOCKER_CONFIG=$STATE/registry/client REGISTRY=$REGISTRY_NAME \
    REGISTRY_PUSH=127.0.0.1:$(cat "$STATE/registry.port") "$ROOT/sandbox/build-images"
  applications_stamp | write_file "$built" 644
}
