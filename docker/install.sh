#!/bin/sh
# Installs what one image of gpufleet contains below /image, from the files in /source.
#   install.sh dependencies EXTRA...        the locked dependencies of some extras of pyproject.toml
#   install.sh code FOLDER... -- COMMAND... the packages of some folders, and launchers of some console scripts
set -eu
python=$(python3 -c 'import sys; print("python%d.%d" % sys.version_info[:2])')
site=/usr/local/lib/$python/dist-packages

install_dependencies() {
  for extra in "$@"; do extras="${extras:-} --extra $extra"; done
  # shellcheck disable=SC2086 # a list of options
  /uv/bin/uv export --quiet --locked --no-dev --no-emit-project --no-header $extras --output-file /requirements.txt
  /uv/bin/uv pip install --quiet --python /usr/bin/python3 --no-deps --require-hashes --only-binary=:all: \
    --link-mode=copy --target "/image$site" --requirements /requirements.txt
  rm -rf "/image$site/bin" "/image$site/numpy/_core/include" "/image$site/.lock"
  find "/image$site" -path '*/numpy/*' -type d -name tests -prune -exec rm -r '{}' +
  find "/image$site" -name '*.pyi' -delete
}

install_code() {
  mkdir -p "/image$site" /image/usr/local/bin /wheel
  /uv/bin/uv build --quiet --wheel --out-dir /wheel .
  while [ "$1" != -- ]; do
    cp -r "$1"/gpufleet_* "/image$site"
    shift
  done
  shift
  # The metadata of the wheel: the programs read their version from it.
  python3 -m zipfile --extract /wheel/*.whl /unpacked
  cp -r /unpacked/*.dist-info "/image$site"
  for command in "$@"; do
    target=$(sed -n "s/^$command *= *//p" /unpacked/*.dist-info/entry_points.txt)
    printf '#!/usr/bin/python3\nimport sys\n\nfrom %s import %s\n\nsys.exit(%s())\n' \
      "${target%%:*}" "${target##*:}" "${target##*:}" > "/image/usr/local/bin/$command"
    chmod 755 "/image/usr/local/bin/$command"
  done
}

step=$1
shift
"install_$step" "$@"
python3 -m compileall -q --invalidation-mode unchecked-hash -s "/image$site" -p "$site" "/image$site"
