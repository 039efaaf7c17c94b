/**
 * Runs in the page, before anything of it: remembers what is drawn on canvases, so that `coloPicture` can give the page as it is laid out
 * as an SVG, as far down as an element ends. Text, boxes, lines and plots are what the browser has computed; nothing is made up.
 */
const round = (value) => String(Math.round(10 * value) / 10);
const escaped = (text) => text.replaceAll('&', '&amp;').replaceAll('<', '&lt;').replaceAll('"', '&quot;');

/** Each canvas has what was drawn on it since it was cleared. */
const drawn = new WeakMap();
let clipsMade = 0;

const STEPS = {
  moveTo: (x, y) => `M${round(x)} ${round(y)}`,
  lineTo: (x, y) => `L${round(x)} ${round(y)}`,
  closePath: () => 'Z',
  rect: (x, y, width, height) =>
    `M${round(x)} ${round(y)}h${round(width)}v${round(height)}h${round(-width)}Z`,
  // The plots have whole circles only.
  arc: (x, y, r) =>
    `M${round(x - r)} ${round(y)}a${round(r)} ${round(r)} 0 1 0 ${round(2 * r)} 0a${round(r)} ${round(r)} 0 1 0 ${round(-2 * r)} 0Z`,
};

function remember(prototype) {
  for (const [name, step] of Object.entries(STEPS)) {
    const native = prototype[name];
    prototype[name] = function (...args) {
      const before = this.coloPath ?? '';
      // A path begins somewhere: with a line, at its end.
      const next = step(...args);
      this.coloPath = before === '' ? next.replace(/^L/, 'M') : before + next;
      return native.apply(this, args);
    };
  }
}

const context = CanvasRenderingContext2D.prototype;
remember(Path2D.prototype);
remember(context);

function put(from, element) {
  const clipped = (from.coloClips ?? []).reduceRight(
    (inner, { id }) => `<g clip-path="url(#clip${id})">${inner}</g>`,
    element,
  );
  const clips = (from.coloClips ?? []).filter(({ isPut }) => !isPut);
  for (const clip of clips) clip.isPut = true;
  drawn.set(from.canvas, [
    ...(drawn.get(from.canvas) ?? []),
    ...clips.map(({ element }) => element),
    clipped,
  ]);
}

function after(name, note) {
  const native = context[name];
  context[name] = function (...args) {
    note(this, ...args);
    return native.apply(this, args);
  };
}

after('beginPath', (from) => {
  from.coloPath = '';
});
after('save', (from) => {
  from.coloSaved = [...(from.coloSaved ?? []), from.coloClips ?? []];
});
after('restore', (from) => {
  from.coloClips = from.coloSaved?.pop() ?? [];
});
after('clip', (from, path) => {
  clipsMade += 1;
  const id = clipsMade;
  const d = (path ?? from).coloPath ?? '';
  const element = `<clipPath id="clip${id}"><path ${shift(from)}d="${d}"/></clipPath>`;
  from.coloClips = [...(from.coloClips ?? []), { id, element, isPut: false }];
});
after('clearRect', (from) => drawn.set(from.canvas, []));
after('stroke', (from, path) => {
  const d = (path ?? from).coloPath ?? '';
  if (d !== '' && from.lineWidth > 0)
    put(
      from,
      `<path ${shift(from)}d="${d}" fill="none" stroke="${from.strokeStyle}" stroke-width="${from.lineWidth}"/>`,
    );
});
after('fill', (from, path) => {
  const d = (path instanceof Path2D ? path : from).coloPath ?? '';
  if (d !== '') put(from, `<path ${shift(from)}d="${d}" fill="${from.fillStyle}"/>`);
});
after('fillText', (from, text, x, y) => {
  const { textAlign, textBaseline } = from;
  const ascent = from.measureText(text).fontBoundingBoxAscent;
  from.textBaseline = 'alphabetic';
  const { width, fontBoundingBoxAscent } = from.measureText(text);
  from.textBaseline = textBaseline;
  const left = x - (textAlign === 'right' ? width : textAlign === 'center' ? width / 2 : 0);
  const size = /(\d+(?:\.\d+)?)px/.exec(from.font)?.[1] ?? '12';
  const style = {
    left,
    top: y - ascent + fontBoundingBoxAscent,
    width,
    size,
    weight: '400',
    fill: from.fillStyle,
  };
  put(from, textElement(text, style, shift(from)));
});

function shift(from) {
  const { e, f } = from.getTransform();
  return e === 0 && f === 0 ? '' : `transform="translate(${round(e)} ${round(f)})" `;
}

/** `top`: of the baseline. The width is the page's, whatever the font of the reader. */
function textElement(text, { left, top, width, size, weight, fill }, more = '') {
  const bold = weight === '400' ? '' : ` font-weight="${weight}"`;
  return `<text ${more}x="${round(left)}" y="${round(top)}" textLength="${round(width)}" font-size="${round(size)}"${bold} fill="${fill}">${escaped(text)}</text>`;
}

const measure = document.createElement('canvas').getContext('2d');

function ascentOf({ font }) {
  measure.font = font;
  return measure.measureText('x').fontBoundingBoxAscent;
}

const isClear = (color) => color === 'transparent' || /^rgba\(.*, 0\)$/.test(color);

function box(element, style) {
  const { left, top, width, height } = element.getBoundingClientRect();
  if (width === 0 || height === 0) return [];
  const side = Number.parseFloat(style.borderTopWidth);
  const isFramed = side > 0 && style.borderTopStyle !== 'none';
  const parts = [];
  if (!isClear(style.backgroundColor) || isFramed) {
    const inset = isFramed ? side / 2 : 0;
    const radius = Number.parseFloat(style.borderTopLeftRadius);
    const line = isFramed
      ? ` stroke="${style.borderTopColor}"${style.borderTopStyle === 'dashed' ? ' stroke-dasharray="3"' : ''}`
      : '';
    const fill = isClear(style.backgroundColor) ? 'none' : style.backgroundColor;
    parts.push(
      `<rect x="${round(left + inset)}" y="${round(top + inset)}" width="${round(width - 2 * inset)}" height="${round(height - 2 * inset)}"${radius > 0 ? ` rx="${round(radius)}"` : ''} fill="${fill}"${line}/>`,
    );
  }
  if (!isFramed && Number.parseFloat(style.borderBottomWidth) > 0) {
    const y = round(top + height - 0.5);
    parts.push(`<path d="M${round(left)} ${y}h${round(width)}" stroke="${style.borderBottomColor}"/>`);
  }
  return parts;
}

/** Returns the words of a text, a line at a time. */
function textLines(node, style, bottom) {
  const lines = [];
  for (const { index, 0: word } of node.data.matchAll(/\S+/g)) {
    const range = document.createRange();
    range.setStart(node, index);
    range.setEnd(node, index + word.length);
    const { left, right, top } = range.getBoundingClientRect();
    const last = lines.at(-1);
    if (last !== undefined && last.top === top) Object.assign(last, { text: `${last.text} ${word}`, right });
    else lines.push({ text: word, left, right, top });
  }
  const ascent = ascentOf(style);
  return lines
    .filter(({ top }) => top + ascent < bottom)
    .map(({ text, left, right, top }) =>
      textElement(text, {
        ...{ left, top: top + ascent, width: right - left },
        ...{ size: Number.parseFloat(style.fontSize), weight: style.fontWeight, fill: style.color },
      }),
    );
}

function elementsOf(element, bottom) {
  const style = getComputedStyle(element);
  const rect = element.getBoundingClientRect();
  if (
    element.tagName === 'NOSCRIPT' ||
    style.display === 'none' ||
    style.visibility === 'hidden' ||
    rect.right < 0 ||
    rect.top >= bottom
  )
    return [];
  const { left, top, width, height } = rect;
  if (element instanceof HTMLCanvasElement) {
    const scale = width / element.width;
    const scaled = scale === 1 ? '' : ` scale(${scale})`;
    return [
      `<g transform="translate(${round(left)} ${round(top)})${scaled}">`,
      ...(drawn.get(element) ?? []),
      '</g>',
    ];
  }
  if (element instanceof SVGRectElement)
    return [
      `<rect x="${round(left)}" y="${round(top)}" width="${round(width)}" height="${round(height)}" fill="${style.fill}"/>`,
    ];
  // What is scrolled out of sight is not in the picture.
  const end = style.overflowY === 'visible' ? bottom : Math.min(bottom, rect.bottom);
  const inside = [...element.childNodes].flatMap((node) => {
    if (node instanceof Text) return textLines(node, style, end);
    return node instanceof Element && node.tagName !== 'title' ? elementsOf(node, end) : [];
  });
  return [...box(element, style), ...inside];
}

/** Returns the page down to the end of what `selector` names. */
globalThis.coloPicture = (selector, title) => {
  const bottom = Math.ceil(document.querySelector(selector).getBoundingClientRect().bottom) + 12;
  const width = document.documentElement.clientWidth;
  const back = getComputedStyle(document.body).backgroundColor;
  return [
    `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 ${width} ${bottom}" font-family="DejaVu Sans, Verdana, sans-serif" role="img">`,
    `<title>${escaped(title)}</title>`,
    `<rect width="${width}" height="${bottom}" fill="${back}"/>`,
    ...elementsOf(document.body, bottom),
    '</svg>',
    '',
  ].join('\n');
};
