// The same calls in a page: `start` gets the address of the ingress and the descriptors in base64.
'use strict';

const { makeCalls } = require('./calls.js');

globalThis.start = (baseUrl, descriptors) => {
  globalThis.call = makeCalls(baseUrl, Uint8Array.from(atob(descriptors), (each) => each.charCodeAt(0)));
};
