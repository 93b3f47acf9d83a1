// The interactive part of a report. Without scripts, WebGL2 or gzip streams, the page shows its static pictures instead.
"use strict";
(async () => {
  const element = (id) => document.getElementById(id);
  const cases = JSON.parse(element("viewer-data").textContent);
  window.addEventListener("beforeprint", () => {
    for (const details of document.querySelectorAll("details")) details.open = true;
  });
  const usable = document.createElement("canvas").getContext("webgl2") && "DecompressionStream" in window;
  if (!usable || Object.keys(cases).length === 0) return;

  async function unpacked(id) {
    const packed = Uint8Array.from(atob(element(id).textContent), (character) => character.charCodeAt(0));
    const stream = new Blob([packed]).stream().pipeThrough(new DecompressionStream("gzip"));
    return new Response(stream).arrayBuffer();
  }

  const library = document.createElement("script");
  library.textContent = new TextDecoder().decode(await unpacked("niivue"));
  document.head.append(library);
  const { Niivue, NVImage } = niivue;

  // name: [lowest, highest intensity shown], in HU
  const CT_WINDOWS = {
    "Soft tissue": [-160, 240],
    Liver: [-20, 140],
    Lung: [-1024, 150],
    Bone: [-500, 1016],
  };
  // name: [niivue's slice type; steps in right, anterior, superior of the left, up and page-up keys]
  const PLANES = {
    All: [3, [1, 0, 0], [0, 1, 0], [0, 0, 1]],
    Axial: [0, [1, 0, 0], [0, 1, 0], [0, 0, 1]],
    Coronal: [1, [1, 0, 0], [0, 0, 1], [0, 1, 0]],
    Sagittal: [2, [0, 1, 0], [0, 0, 1], [1, 0, 0]],
  };

  document.body.classList.add("interactive");
  element("viewer").hidden = false;
  const canvas = element("viewer-canvas");
  const viewer = new Niivue({
    backColor: [0, 0, 0, 1],
    crosshairColor: [1, 1, 1, 0.55],
    crosshairWidth: 0.35,
    crosshairGap: 6,
    fontColor: [0.85, 0.88, 0.92, 1],
    isRadiologicalConvention: true,
    sagittalNoseLeft: true,
    showAllOrientationMarkers: true,
    multiplanarShowRender: 0,
    multiplanarPadPixels: 4,
    dragAndDropEnabled: false,
    dragMode: 9, // right drag: window
    logLevel: "error",
    loadingText: "",
  });
  await viewer.attachToCanvas(canvas);

  let shown = null; // number of the case in the viewer
  let plane = "All";

  viewer.onLocationChange = (location) => {
    const [right, anterior, superior] = location.mm;
    const here = cases[shown].masks.filter((_, i) => location.values[i + 1]?.value > 0).map((mask) => mask.name);
    const unit = cases[shown].is_ct ? " HU" : "";
    const millimetres = [-right, -anterior, superior].map((part) => part.toFixed(0)).join(", ");
    const intensity = Math.round(location.values[0].value);
    element("viewer-place").textContent = [`LPS ${millimetres} mm`, `${intensity}${unit}`, ...here].join("   ·   ");
  };

  function press(group, chosen) {
    for (const button of element(group).children) button.setAttribute("aria-pressed", button === chosen);
  }

  function addButton(group, name, action) {
    const button = document.createElement("button");
    button.type = "button";
    button.textContent = name;
    button.addEventListener("click", () => {
      press(group, button);
      action();
    });
    element(group).append(button);
    return button;
  }

  function setWindow([low, high]) {
    viewer.volumes[0].cal_min = low;
    viewer.volumes[0].cal_max = high;
    viewer.updateGLVolume();
  }

  function addMaskControls(masks) {
    const bar = element("viewer-masks");
    bar.replaceChildren();
    let opacity = 0.5;
    const boxes = masks.map((mask) => {
      const label = document.createElement("label");
      const box = document.createElement("input");
      const swatch = document.createElement("span");
      box.type = "checkbox";
      box.checked = true;
      swatch.className = "swatch";
      swatch.style.background = mask.colour;
      label.append(box, swatch, mask.name);
      bar.append(label);
      return box;
    });
    function apply() {
      boxes.forEach((box, i) => (viewer.volumes[i + 1].opacity = box.checked ? opacity : 0));
      viewer.updateGLVolume();
    }
    boxes.forEach((box) => box.addEventListener("change", apply));
    if (masks.length === 0) return;
    const label = document.createElement("label");
    const slider = document.createElement("input");
    Object.assign(slider, { type: "range", min: 0.1, max: 1, step: 0.1, value: opacity });
    slider.addEventListener("input", () => {
      opacity = Number(slider.value);
      apply();
    });
    label.append("Opacity", slider);
    bar.append(label);
  }

  async function load({ image, masks, window: [low, high] }) {
    const add = async (id, map, opacity, least, most) =>
      viewer.addVolume(await NVImage.new(await unpacked(id), `${id}.nii`, map, opacity, null, least, most));
    while (viewer.volumes.length) viewer.removeVolumeByIndex(viewer.volumes.length - 1);
    await add(image, "gray", 1, low, high);
    for (const mask of masks) {
      const [red, green, blue] = [1, 3, 5].map((i) => parseInt(mask.colour.slice(i, i + 2), 16));
      const map = `mask ${mask.colour}`;
      viewer.addColormap(map, { R: [red, red], G: [green, green], B: [blue, blue], A: [0, 255], I: [0, 255] });
      await add(mask.volume, map, 0.5, 0, 1);
    }
  }

  async function showCase(number) {
    if (number === shown) return;
    for (const section of document.querySelectorAll(".case"))
      section.classList.toggle("active", section.dataset.number === number);
    element("viewer-case").value = number;
    const data = cases[number];
    element("viewer").classList.toggle("no-pictures", !data);
    if (!data) return;
    document.documentElement.dataset.viewer = "loading";
    await load(data);
    shown = number;
    element("viewer-windows").replaceChildren();
    const windows = data.is_ct ? CT_WINDOWS : { Image: data.window };
    const buttons = Object.entries(windows).map(([name, range]) =>
      addButton("viewer-windows", name, () => setWindow(range)),
    );
    press("viewer-windows", buttons[0]);
    addMaskControls(data.masks);
    const grid = data.spacing_mm.map((edge) => edge.toFixed(1)).join(" × ");
    const steps = data.is_ct ? "intensities in steps of 8 HU from -1024 to 1016" : "256 grey levels";
    element("viewer-note").textContent = `For viewing only: voxels of ${grid} mm, ${steps}.`;
    const first = document.querySelector(`#case-${number} .show`);
    goTo(first ? first.dataset.ras : null);
    document.documentElement.dataset.viewer = "ready";
  }

  function goTo(ras) {
    viewer.scene.crosshairPos = ras ? viewer.mm2frac(ras.split(" ").map(Number), 0, true) : [0.5, 0.5, 0.5];
    viewer.updateGLVolume();
    viewer.createOnLocationChange();
  }

  // One case after the other, in the order of the requests.
  let queue = Promise.resolve();
  const inTurn = (task) => (queue = queue.then(task));

  for (const name of Object.keys(PLANES)) {
    const button = addButton("viewer-planes", name, () => {
      plane = name;
      viewer.setSliceType(PLANES[name][0]);
    });
    if (name === plane) press("viewer-planes", button);
  }
  element("viewer-case").addEventListener("change", (event) => inTurn(() => showCase(event.target.value)));
  for (const button of document.querySelectorAll(".show"))
    button.addEventListener("click", () => inTurn(async () => {
      await showCase(button.dataset.case);
      goTo(button.dataset.ras);
      canvas.scrollIntoView({ block: "nearest" });
    }));
  canvas.addEventListener("keydown", (event) => {
    const [, left, up, pageUp] = PLANES[plane];
    const opposite = (step) => step.map((part) => -part);
    const step = {
      ArrowLeft: left, ArrowRight: opposite(left), ArrowUp: up, ArrowDown: opposite(up),
      PageUp: pageUp, PageDown: opposite(pageUp),
    }[event.key];
    if (!step) return;
    event.preventDefault();
    viewer.moveCrosshairInVox(...step);
  });
  const fromAddress = () => location.hash.replace("#case-", "");
  window.addEventListener("hashchange", () => element(`case-${fromAddress()}`) && inTurn(() => showCase(fromAddress())));

  await inTurn(() => showCase(element(`case-${fromAddress()}`) ? fromAddress() : Object.keys(cases)[0]));
})();
