# For a larger backbone replace mixnet-s by mixnet-m, mixnet-l or mixnet-xl
_base_ = ['../_base_/backbones/mixnet-s.py', '../_base_/detectors/yolox-tiny.py']
model = dict(backbone={{_base_.mixnet_c3c5}}, neck=dict(in_channels={{_base_.channels_c3c5}}))
