/** The windows in which screenshots are taken. */
export const DESKTOP = { width: 1200, height: 800 };
export const PHONE = { width: 390, height: 780, deviceScaleFactor: 2 };
